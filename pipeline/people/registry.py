"""The registry of people: a JSON file that keeps ids, names, merges and splits while stores come and go."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import StoreError


@dataclass(frozen=True)
class Known:
    """What views need of a registry."""

    names: dict[int, str]
    merged: dict[int, int]
    """Ids that became another one, already followed to the last."""


def known(path: Path) -> Known | None:
    """Names and merges of a registry file; None where there is no file. Raises StoreError where it is damaged."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {int(key): str(one["name"]) for key, one in content["people"].items() if one.get("name")}
        merged = {int(old): int(new) for old, new in content.get("merged", {}).items()}
    except (OSError, ValueError, KeyError, AttributeError) as err:
        raise StoreError(
            f"the registry {path} cannot be read ({err}); restore it, or delete it and run people"
        ) from err
    return Known(names, merged)
