"""Options, and their values as JSON: the same text in each process, for resume keys and for what a store keeps."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python


class Options(BaseModel):
    """Base of options: no unknown names, and no true for a number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _check_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false for a number, which pydantic takes as 1 and 0. YAML reads `on` and `yes` as true."""
        found = [one for one in (value if isinstance(value, list | tuple) else [value]) if isinstance(one, bool)]
        if found and _is_number(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError(f"this needs a number, not {found[0]}")
        return value


def _is_number(annotation: Any) -> bool:
    """Return whether a type takes numbers, and no booleans."""
    parts = _parts(annotation)
    takes_any = any(part in (bool, Any, object) or isinstance(part, bool) for part in parts)
    return not takes_any and any(part in (int, float) for part in parts)


def _parts(annotation: Any) -> list[Any]:
    inner = [part for one in get_args(annotation) for part in _parts(one)]
    return inner or [annotation]


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
