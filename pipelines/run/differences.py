"""Differences between two settings, in lines for a message."""

from typing import Any

# Shown instead of a value that one side does not have.
ABSENT = "(absent)"


def changed_fields(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return the fields that differ or exist on one side only, in order; ignores ``name``, which is a label."""
    names = dict.fromkeys([*old, *new])
    return [name for name in names if name != "name" and old.get(name, ABSENT) != new.get(name, ABSENT)]


def differences(
    old: dict[str, Any], new: dict[str, Any], line: str = "{name}: was {old!r}, is now {new!r}"
) -> list[str]:
    """Return one ``line`` for each of the :func:`changed_fields`."""
    return [
        line.format(name=name, old=shortened(old.get(name, ABSENT)), new=shortened(new.get(name, ABSENT)))
        for name in changed_fields(old, new)
    ]


def shortened(value: Any, most: int = 10) -> Any:
    """Return a value for a message: of a long list, such as the names of all classes, the first and their number."""
    if not isinstance(value, list | tuple) or len(value) <= most:
        return value
    return [*value[:most], f"and {len(value) - most:,} more"]
