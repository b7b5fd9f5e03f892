r"""Names of files as text. On Linux a name is bytes; bytes that are not UTF-8 are written as ``\xe9``, reversibly.

So are line breaks and other control characters. Python keeps bytes that are not UTF-8 as surrogates, which no file,
table or terminal accepts. Listings call :func:`readable` on each name, and whatever opens a file calls
:func:`original`; everything between them handles plain text.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial

_TO_ESCAPE = re.compile(r"[\x00-\x1f\x7f\udc80-\udcff]|\\(?=x[0-9a-f]{2})")
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
# Characters that nobody sees. Joiners and tags are none of them: they change letters (Persian, Bengali) and flags.
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
# Joiners that change nothing, since they follow a Latin letter or a digit.
_IDLE_JOINER = re.compile("(?<=[0-9A-Za-z\u00c0-\u024f])[\u200c\u200d]+")
# Letters that are blank: the Hangul filler, and a Braille cell without dots.
_BLANK = str.maketrans("\u3164\u2800", "  ")


def readable(name: str) -> str:
    r"""Return a name from the operating system as plain text in one line.

    UTF-8 names without control characters and without a literal ``\xe9`` are unchanged.
    """
    return _TO_ESCAPE.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", name)


def original(name: str) -> str:
    """Return the name for the operating system; the inverse of :func:`readable`."""
    return _ESCAPED.sub(lambda match: _character(int(match[1], 16)), name) if "\\" in name else name


def _character(byte: int) -> str:
    return chr(byte) if byte < 0x80 else chr(0xDC00 + byte)


def look_alikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return groups of names that look the same: they differ by normalisation, spaces or invisible characters."""
    return _groups(names, _visible)


def case_twins(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return groups of names that differ only in case, or look the same."""
    return _groups(names, lambda name: _visible(name).lower())


def _visible(name: str) -> str:
    # Among the spaces are those that no line breaks at, as text that is copied from a web page has them.
    return unicodedata.normalize(
        "NFC", " ".join(_IDLE_JOINER.sub("", _INVISIBLE.sub("", name)).translate(_BLANK).split())
    )


def _groups(names: Iterable[str], key: Callable[[str], str]) -> list[tuple[str, ...]]:
    groups: dict[str, set[str]] = defaultdict(set)
    for name in names:
        groups[key(name)].add(name)
    return [tuple(sorted(group)) for _, group in sorted(groups.items()) if len(group) > 1]


def normalisation_twins(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return groups of names that look the same, since they differ only by Unicode normalisation (NFC, NFD)."""
    return _groups((name for name in names if not name.isascii()), partial(unicodedata.normalize, "NFC"))
