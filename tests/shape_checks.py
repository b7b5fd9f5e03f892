"""Checks of shapes and types in googlenet/ under pytest: beartype, which accepts int for float, behind jaxtyping.

In each call of a function, jaxtyping keeps the sizes of the axes that its annotations name. Most functions name none:
beartype alone checks these, as strictly and in a fraction of the time.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, ForwardRef, TypeVar, get_args

import jaxtyping
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
_jaxtyped = jaxtyping.jaxtyped


def _may_have_axes(annotation: object) -> bool:
    """Whether a type holds arrays with axes, or names a type that does not exist yet."""
    if isinstance(annotation, str | ForwardRef):
        return True
    if isinstance(annotation, TypeVar):
        return any(map(_may_have_axes, (*annotation.__constraints__, annotation.__bound__)))
    if isinstance(annotation, list):  # the parameters of a Callable
        return any(map(_may_have_axes, annotation))
    is_array = inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray)
    return is_array or any(map(_may_have_axes, get_args(annotation)))


def _checked(function: Any, typechecker: Callable[[Any], Any]) -> Any:
    if dataclasses.is_dataclass(function) and not _has_axes(function.__init__):
        function.__init__ = _checked(function.__init__, typechecker)
        return function
    if not inspect.isfunction(function) or _has_axes(function):
        return _jaxtyped(function, typechecker=typechecker)
    checked = typechecker(function)

    @functools.wraps(function)
    def wrapper(*args: Any, **named: Any) -> Any:
        return (function if jaxtyping.config.jaxtyping_disable else checked)(*args, **named)

    return function if checked is function else wrapper


def _has_axes(function: Callable[..., Any]) -> bool:
    return any(map(_may_have_axes, function.__annotations__.values()))


def _decorator(typechecker: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Stand for ``jaxtyping.jaxtyped``, with which jaxtyping decorates all that it imports for ``check``."""
    return functools.partial(_checked, typechecker=typechecker)


jaxtyping.jaxtyped = _decorator
