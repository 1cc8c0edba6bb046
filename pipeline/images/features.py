"""The features of a store: which array holds them, and its rows in order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.errors import UsageError
from pipeline.store.read import RunInput
from pipeline.store.schema import Array
from pipeline.text import unknown

NAME = "name"
"""Item array of pictures: the path relative to the input."""


def feature_array(inputs: Sequence[RunInput], named: str | None) -> Array:
    """Return the array of features: the one that is named, else the only one there is.

    Features are floats, one vector per item. Inputs of which nothing is done yet are left out. Raises UsageError with
    the candidates if there is no such array, or if there are several.
    """
    begun = [item for item in inputs if item.arrays]
    if not begun:
        raise UsageError("nothing of these stores is done yet; run a workflow into them first")
    found = [
        {name: array for name, array in item.arrays.items() if array.dims[0] == item.item and _is_feature(array)}
        for item in begun
    ]
    candidates = list(dict.fromkeys(name for arrays in found for name in arrays))
    if named is None and len(candidates) != 1:
        some = f"several arrays of features: {', '.join(candidates)}; choose one with --array"
        none = f"no array of features (floats, one vector per {begun[0].item}); run a workflow that makes one"
        raise UsageError(f"these stores have {some if candidates else none}")
    name = candidates[0] if named is None else named
    if name not in candidates:
        raise UsageError(unknown("array of features", name, candidates))
    lacking = next((item for item, arrays in zip(begun, found, strict=True) if name not in arrays), None)
    if lacking is not None:
        raise UsageError(f"{lacking.name!r} in {lacking.store_path} has no array {name!r} yet; finish its run first")
    kinds = {f"{one[name].dtype} ({one[name].shape[0]})": item for one, item in zip(found, begun, strict=True)}
    if len(kinds) > 1:
        shown = ", ".join(f"{kind} in {item.store_path}" for kind, item in kinds.items())
        raise UsageError(f"array {name!r} is not the same everywhere: {shown}; take the stores one by one")
    return found[0][name]


def _is_feature(array: Array) -> bool:
    if array.place or array.dims[-1] in ("xy", "xywh"):  # a place in the picture
        return False
    return len(array.shape) == 1 and not array.is_string and np.dtype(array.dtype).kind == "f"
