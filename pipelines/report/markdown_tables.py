"""Tables, names and code in Markdown."""

import re
from collections.abc import Iterable, Sequence

TEXT_COLUMNS = {
    "replica",
    "replicas",
    "views",
    "class",
    "most often taken for",
    "image",
    "label",
    "answer",
    "measure",
    "soup",
}
# Of an underscore between letters or digits, as in replica_0, Markdown makes nothing.
MARKUP = re.compile(r"[\\`*~\[\]|]|(?<![^\W_])_|_(?![^\W_])")


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; columns of words are aligned left, those of numbers right."""
    sides = (":---" if heading in TEXT_COLUMNS else "---:" for heading in headings)
    lines = ["| " + " | ".join(headings) + " |", "| " + " | ".join(sides) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(plain(cell) for cell in row) + " |" for row in rows)])


def plain(text: str) -> str:
    """Return a name, such as that of a class, so that Markdown shows it as it is, in one line."""
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return " ".join(MARKUP.sub(r"\\\g<0>", text).splitlines())


def code(text: str) -> str:
    """Return a path, a value or a command as code in one line, whatever backticks it has; not for tables."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in (text[:1], text[-1:]) else ""
    return f"{fence}{space}{' '.join(text.splitlines())}{space}{fence}"
