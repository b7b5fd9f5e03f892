"""Recipes from JSON: those of a run directory, of a file, and of earlier versions."""

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from pipelines.errors import UserError, did_you_mean
from pipelines.run.recipe import Recipe

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# What recipes meant before these fields existed.
VALUES_BEFORE = {
    "area_sampling": "torchvision", "alternate_mirror": False, "first_crop_px": None, "teacher": "",
    "teacher_policy": 10, "teacher_temperature": 2.0, "label_weight": 0.5,
}  # fmt: skip


def with_new_fields(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a recipe that is complete but for :data:`VALUES_BEFORE`, completed."""
    absent = {field.name for field in fields(Recipe)} - set(values)
    return {**VALUES_BEFORE, **values} if absent <= set(VALUES_BEFORE) else values


def recipe_from_dict(values: dict[str, Any]) -> Recipe:
    """Inverse of :meth:`Recipe.to_dict`; absent fields take their defaults.

    The recipe of an earlier version, which lacks new fields only, keeps its meaning.

    Raises:
        UserError: a field is unknown, or a value has the wrong type or is out of range.
    """
    if not isinstance(values, dict):
        raise UserError("a recipe is a JSON object, with a value for each field")
    known = {field.name for field in fields(Recipe)}
    if unknown := sorted(set(values) - known):
        named = ", ".join(f"{name}{did_you_mean(name.replace('-', '_'), known)}" for name in unknown)
        raise UserError(f"unknown recipe field {named}; the fields are {', '.join(sorted(known))}")
    try:
        # As JSON, in which a list is a tuple; strictly, since "no" is no truth value and "3" no number.
        return TypeAdapter(Recipe).validate_json(json.dumps(with_new_fields(values)), strict=True)
    except ValidationError as error:
        raise UserError("; ".join(map(_problem, error.errors()))) from error


def _problem(error: "ErrorDetails") -> str:
    """Return the recipe's own refusal, or the field and what pydantic says of it."""
    if isinstance(own := error.get("ctx", {}).get("error"), UserError):
        return str(own)
    return f"{'.'.join(map(str, error['loc']))}: {error['msg']}"
