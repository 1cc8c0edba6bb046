"""Values of options as JSON: the same text in each process, for resume keys and for what a store keeps."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python


def json_values(options: BaseModel, exclude: Collection[str] = ()) -> dict[str, Any]:
    """Return the options as JSON values. Sets are sorted: Python gives them another order in each process."""
    left_out = set(exclude)
    dumped: dict[str, Any] = _in_order(
        options.model_dump(exclude=left_out), options.model_dump(mode="json", exclude=left_out)
    )
    return dumped


def default_of(field: FieldInfo) -> Any:
    """Return the default of an option; None if it has none, or one that depends on other options."""
    try:
        value = field.get_default(call_default_factory=True)
    except (TypeError, ValueError):  # its factory takes the options before it
        return None
    return None if value is PydanticUndefined else value


def json_default(field: FieldInfo) -> Any:
    """Return the default of an option as a JSON value."""
    value = default_of(field)
    return _in_order(value, to_jsonable_python(value))


def _in_order(value: Any, dumped: Any) -> Any:
    """Return `dumped`, the JSON value of `value`, with its sets sorted."""
    if isinstance(value, set | frozenset) and isinstance(dumped, list):
        return sorted(dumped, key=repr)
    if isinstance(value, dict) and isinstance(dumped, dict) and len(value) == len(dumped):
        return {key: _in_order(one, of) for one, (key, of) in zip(value.values(), dumped.items(), strict=True)}
    if isinstance(value, list | tuple) and isinstance(dumped, list) and len(value) == len(dumped):
        return [_in_order(one, of) for one, of in zip(value, dumped, strict=True)]
    return dumped
