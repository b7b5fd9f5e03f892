"""Reader of protocol buffers by field number, for the few messages whose generated code is not worth a dependency.

The format: https://protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

VARINT, FIXED_64, BYTES, FIXED_32 = 0, 1, 2, 5
FIXED_BYTES = {FIXED_64: 8, FIXED_32: 4}
MAX_VARINT_BYTES = 10


class ProtobufError(ValueError):
    """The bytes are no message."""


class Message:
    """The fields of a message, by their numbers."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._fields: dict[int, list[int | memoryview]] = {}
        for number, value in _fields(memoryview(data)):
            self._fields.setdefault(number, []).append(value)

    def messages(self, number: int) -> "list[Message]":
        """Return the messages in a field."""
        return [Message(data) for data in self._chunks(number)]

    def texts(self, number: int) -> list[str]:
        """Return the strings in a field."""
        try:
            return [str(chunk, "utf-8") for chunk in self._chunks(number)]
        except UnicodeDecodeError as error:
            raise ProtobufError(f"field {number} is no text") from error

    def text(self, number: int) -> str:
        """Return the last string in a field; empty if there is none."""
        return (self.texts(number) or [""])[-1]

    def integers(self, number: int) -> list[int]:
        """Return the integers in a field, whether packed or one by one."""
        numbers: list[int] = []
        for value in self._fields.get(number, []):
            if isinstance(value, int):
                numbers.append(value)
                continue
            position = 0
            while position < len(value):
                integer, position = _varint(value, position)
                numbers.append(integer)
        return numbers

    def integer(self, number: int, default: int = 0) -> int:
        """Return the last integer in a field."""
        return (self.integers(number) or [default])[-1]

    def floats(self, number: int, dtype: str) -> npt.NDArray[np.floating]:
        """Return the numbers in a field as one array of ``dtype``, whether packed or one by one."""
        chunks = self._chunks(number)
        if any(len(chunk) % np.dtype(dtype).itemsize for chunk in chunks):
            raise ProtobufError(f"field {number} ends within a number")
        return np.frombuffer(b"".join(chunks), dtype)

    def _chunks(self, number: int) -> list[memoryview]:
        values = self._fields.get(number, [])
        if any(isinstance(value, int) for value in values):
            raise ProtobufError(f"field {number} holds an integer, expected bytes")
        return [value for value in values if not isinstance(value, int)]


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ProtobufError("a field has the number 0")
        if kind == VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if kind == BYTES:
            length, position = _varint(data, position)
        elif kind in FIXED_BYTES:
            length = FIXED_BYTES[kind]
        else:
            raise ProtobufError(f"field {number} has the unknown type {kind}")
        if position + length > len(data):
            raise ProtobufError(f"field {number} goes on beyond the end")
        yield number, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """Return the integer at ``position``, and the position behind it."""
    value = 0
    for shift, byte in enumerate(data[position : position + MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, position + shift + 1
    raise ProtobufError("an integer goes on beyond the end")
