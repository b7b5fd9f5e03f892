"""Files that name the classes, one in each line."""

import re
from collections import Counter
from collections.abc import Sequence

from pipelines.data.text_files import decode_text
from pipelines.errors import UserError
from pipelines.job.console import count
from pipelines.run.places import local_path


def read_class_list(path: str) -> tuple[str, ...]:
    """Return the class names in a file, in the order of a network's outputs; empty lines do not count.

    Raises:
        UserError: the file cannot be read, is no text, is empty or names a class twice.
    """
    try:
        data = local_path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the classes in {path}: {error.strerror}") from error
    classes = tuple(line.strip() for line in _lines(decode_text(data, path)) if line.strip())
    if not classes:
        raise UserError(f"{path} lists no classes")
    if repeated := _repeated(classes):
        raise UserError(f"{path} lists class {repeated} more than once")
    return classes


def refuse_repeated(classes: Sequence[str], source: str) -> None:
    """Refuse two labels with one name in the metadata of ``source``: their classes would become one.

    Raises:
        UserError: two labels have the same name.
    """
    if repeated := _repeated(classes):
        labels = [str(label) for label, name in enumerate(classes) if name == repeated]
        raise UserError(
            f"{source} names {count(len(labels), 'class', 'classes')} {repeated} (labels {', '.join(labels)}): each "
            "needs a name of its own"
        )


def _repeated(names: Sequence[str]) -> str:
    """Return the first name that occurs more than once; empty if none does."""
    numbers = Counter(names)
    return next((name for name in names if numbers[name] > 1), "")


def _lines(text: str) -> list[str]:
    """Return the lines of ``text`` as editors show them: ``str.splitlines`` also divides names at rare characters."""
    return re.split(r"\r\n|\r|\n", text) if text else []


def classes_by_label(data: bytes, file: str) -> tuple[str, ...]:
    """Return the class names in the content of ``file``; line n is the class of label n - 1.

    Raises:
        UserError: the file is no text, is empty, has an empty line or names a class twice.
    """
    names = [line.strip() for line in _lines(decode_text(data, file).rstrip())]
    if not names:
        raise UserError(f"{file} lists no classes; remove it to name the classes by their numbers")
    if "" in names or len(set(names)) < len(names):
        raise UserError(f"{file} has an empty line or names a class twice; line n is the class of label n - 1")
    if names[0].startswith("#"):
        raise UserError(f"{file} begins with a comment; line n is the class of label n - 1: remove it")
    numbers = [int(match[1]) for name in names if (match := re.match(r"([0-9]{1,9})[\s:;,.]+\S", name))]
    if numbers != sorted(numbers) == list(range(len(names))):
        raise UserError(f"{file} numbers its classes in another order; line n is the class of label n - 1: sort it")
    return tuple(names)
