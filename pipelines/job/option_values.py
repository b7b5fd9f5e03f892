"""Values of options from words: numbers, choices, tuples and dictionaries, by the annotation of the field."""

import math
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from pipelines.errors import did_you_mean

NONE = "None"
NAMES: dict[Any, str] = {int: "NUMBER", float: "NUMBER", str: "TEXT", dict: "NAME AMOUNT"}
# How many words a value takes, as argparse writes it, and a function from the words to the value.
Words = tuple[int | str | None, Callable[[list[str]], Any]]


def kind_name(kind: Any) -> str:
    """Return what ``--help`` shows for a value of ``kind``."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "{" + ",".join(map(str, inner)) + "}"
    if _is_union(kind):
        return "|".join(dict.fromkeys(NONE if member is types.NoneType else kind_name(member) for member in inner))
    if origin is tuple:
        return kind_name(inner[0])
    return NAMES.get(origin or kind, "TEXT")


def words_of(kind: Any) -> Words:
    """Return how many words a value of ``kind`` takes, and a function from words to the value.

    The function raises a ValueError that says what it expects.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if _is_union(kind):
        return _words_of_union(inner)
    if origin is tuple and inner[-1] is Ellipsis:
        width = len(get_args(inner[0])) if get_origin(inner[0]) is tuple else 1
        return "+", lambda words: tuple(_in_parts(words, width, words_of(inner[0])[1]))
    if origin is tuple:
        return len(inner), lambda words: _fixed(words, inner)
    if origin is dict:
        return "+", lambda words: dict(_in_parts(words, 2, lambda pair: (pair[0], _one(inner[1], pair[1]))))
    return None, lambda words: _one(kind, words[0])


def _words_of_union(members: Sequence[Any]) -> Words:
    may_be_none = types.NoneType in members
    kinds = [words_of(member) for member in members if member is not types.NoneType]

    def convert(words: list[str]) -> Any:
        if may_be_none and words == [NONE]:
            return None
        for _, one in kinds[:-1]:
            try:
                return one(words)
            except ValueError:
                continue
        return kinds[-1][1](words)

    return (None if kinds[0][0] is None else "+"), convert


def _in_parts(words: list[str], width: int, convert: Callable[[list[str]], Any]) -> Iterator[Any]:
    if len(words) % width:
        raise ValueError(f"expected values in groups of {width}, got {' '.join(words)}")
    for start in range(0, len(words), width):
        yield convert(words[start : start + width])


def _fixed(words: list[str], kinds: Sequence[Any]) -> tuple[Any, ...]:
    if len(words) != len(kinds):
        raise ValueError(f"expected {len(kinds)} values, got {' '.join(words)}")
    return tuple(_one(kind, word) for kind, word in zip(kinds, words, strict=True))


def _one(kind: Any, word: str) -> Any:
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if word not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}, got {word!r}{did_you_mean(word, choices)}")
        return word
    if _is_union(kind):
        return words_of(kind)[1]([word])
    wrong = f"expected {'a whole number' if kind is int else 'a number'}, got {word!r}"
    try:
        value = kind(word)
    except ValueError:
        raise ValueError(wrong) from None
    if kind is float and math.isnan(value):  # no limit would hold: every comparison with it is false
        raise ValueError(wrong)
    return value


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)
