"""Tables in Markdown."""

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
    "least covered class",
}


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; columns of words are aligned left, those of numbers right."""
    sides = (":---" if heading in TEXT_COLUMNS else "---:" for heading in headings)
    lines = ["| " + " | ".join(headings) + " |", "| " + " | ".join(sides) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(plain(cell) for cell in row) + " |" for row in rows)])


def plain(text: str) -> str:
    """Return a name, such as that of a class, so that Markdown shows it as it is, in one line."""
    for mark, shown in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|")):
        text = text.replace(mark, shown)
    return " ".join(text.splitlines())
