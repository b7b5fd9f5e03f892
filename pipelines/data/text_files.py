"""Text files that people write: UTF-8 with or without a byte order mark, or UTF-16 with one."""

import codecs

from pipelines.errors import UserError

MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def decode_text(data: bytes, name: str) -> str:
    """Return the text in a file; ``name`` is the file's, for the message.

    Raises:
        UserError: it has another encoding.
    """
    encoding = next((encoding for mark, encoding in MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        shown = encoding.removesuffix("-sig").upper()
        raise UserError(
            f"{name} is not {shown} (byte {data[error.start]:#04x} at position {error.start}; Latin-1 perhaps): "
            f"save it as UTF-8"
        ) from error
    if "\0" in text:
        raise UserError(f"{name} has zero bytes, as UTF-16 without a byte order mark has: save it as UTF-8")
    return text
