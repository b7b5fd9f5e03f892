"""Differences between two settings, in lines for a message."""

from typing import Any


def differences(
    old: dict[str, Any], new: dict[str, Any], line: str = "{name}: was {old!r}, is now {new!r}"
) -> list[str]:
    """Return one ``line`` per field that differs or exists on one side only; ignores ``name``, which is a label."""
    absent = "(absent)"
    names = dict.fromkeys([*old, *new])
    return [
        line.format(name=name, old=shortened(old.get(name, absent)), new=shortened(new.get(name, absent)))
        for name in names
        if name != "name" and old.get(name, absent) != new.get(name, absent)
    ]


def shortened(value: Any, most: int = 10) -> Any:
    """Return a value for a message: of a long list, such as the names of all classes, the first and their number."""
    if not isinstance(value, list | tuple) or len(value) <= most:
        return value
    return [*value[:most], f"and {len(value) - most:,} more"]
