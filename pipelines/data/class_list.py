"""Files that name the classes, one in each line."""

from collections import Counter
from pathlib import Path

from pipelines.data.text_files import decode_text
from pipelines.errors import UserError


def read_class_list(path: str) -> tuple[str, ...]:
    """Return the class names in a file, in the order of a network's outputs; empty lines do not count.

    Raises:
        UserError: the file cannot be read, is no text, is empty or names a class twice.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the classes in {path}: {error.strerror}") from error
    classes = tuple(line.strip() for line in decode_text(data, path).splitlines() if line.strip())
    if not classes:
        raise UserError(f"{path} lists no classes")
    if doubled := [name for name, count in Counter(classes).items() if count > 1]:
        raise UserError(f"{path} lists class {doubled[0]} more than once")
    return classes


def classes_by_label(data: bytes, file: str) -> tuple[str, ...]:
    """Return the class names in the content of ``file``; line n is the class of label n - 1.

    Raises:
        UserError: the file is no text, is empty, has an empty line or names a class twice.
    """
    names = [line.strip() for line in decode_text(data, file).rstrip().splitlines()]
    if not names:
        raise UserError(f"{file} lists no classes; remove it, and the classes are named by their numbers")
    if "" in names or len(set(names)) < len(names):
        raise UserError(f"{file} has an empty line or names a class twice; line n is the class of label n - 1")
    return tuple(names)
