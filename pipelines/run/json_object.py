"""JSON objects, parsed from files that may be damaged or edited."""

import json
from collections.abc import Iterable
from typing import Any


def json_object(content: str | bytes, needed: Iterable[str] = ()) -> dict[str, Any]:
    """Return the JSON object in ``content``, which has the keys ``needed``.

    Raises:
        ValueError: it is not JSON, not an object, or lacks a key.
    """
    try:
        value = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004  # as JSON that cannot be parsed
    if missing := [name for name in needed if name not in value]:
        raise ValueError(f"it has no {missing[0]!r}")
    return value
