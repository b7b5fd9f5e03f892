"""Values of a recipe's fields: one spelling of each, and finite numbers only."""

import math
from types import UnionType
from typing import Any, get_args, get_origin


def with_floats(value: Any, kind: Any) -> Any:
    """Return ``value`` with whole numbers as floats wherever its type ``kind`` has a float, in tuples as well."""
    if kind is float:
        return float(value) if type(value) is int else value
    if get_origin(kind) is UnionType:
        for option in get_args(kind):
            value = with_floats(value, option)
    if get_origin(kind) is tuple and isinstance(value, tuple):
        kinds = get_args(kind)
        kinds = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
        if len(kinds) == len(value):  # otherwise it is refused by whoever uses it
            return tuple(with_floats(part, of) for part, of in zip(value, kinds, strict=True))
    return value


def is_finite(value: Any) -> bool:
    """Return whether a value is no NaN, with which every comparison is false, and no infinity; in tuples as well."""
    return (
        all(map(is_finite, value)) if isinstance(value, tuple) else not isinstance(value, float) or math.isfinite(value)
    )
