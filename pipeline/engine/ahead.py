"""Options of further passes, checked before the first pass works on what they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from pipeline.engine.plan import open_source
from pipeline.engine.source import InputRef, StoredSource
from pipeline.engine.workflow import Workflow
from pipeline.errors import InputError
from pipeline.store.read import RunInput
from pipeline.store.run import RunStore


def check_further(
    workflow: Workflow, refs: Sequence[InputRef], parts: Sequence[InputRef], store: RunStore | None
) -> None:
    """Check further passes over inputs that are not complete. `parts`: the inputs, each with its later parts.

    Raises InputError. An input that cannot be opened is left to the pass over it.
    """
    made = {array.name: array for array in (*workflow.schema.item_arrays, *workflow.schema.arrays)}
    for group in with_their_parts(refs, parts) if workflow.further else ():
        stored = [_stored(part, store) for part in group]
        if all(one is not None and one.complete for one in stored):
            continue  # the further pass comes at once, and says it itself
        arrays = [{**(one.arrays if one is not None and one.complete else {}), **made} for one in stored]
        common = {name: array for name, array in arrays[-1].items() if all(name in one for one in arrays)}
        for one in workflow.further:
            assert issubclass(one.source, StoredSource)
            try:
                one.source.check(one.source_options, common, partial(items_of, workflow, group, store))
            except InputError as err:
                if len(refs) == 1:
                    raise
                raise InputError(f"{group[0].path}: {err}") from err


def with_their_parts(refs: Sequence[InputRef], parts: Sequence[InputRef]) -> list[list[InputRef]]:
    """Return each input with its later parts, which come after it in `parts`."""
    groups: list[list[InputRef]] = []
    for part in parts:
        if len(groups) < len(refs) and part == refs[len(groups)]:
            groups.append([])
        groups[-1].append(part)
    return groups


def _stored(ref: InputRef, store: RunStore | None) -> RunInput | None:
    name = store.find_input(ref.path) if store is not None else None
    return RunInput(store.path, name) if store is not None and name is not None else None


def items_of(workflow: Workflow, parts: Sequence[InputRef], store: RunStore | None) -> Mapping[str, np.ndarray] | None:
    """Return what the source says of each item of some inputs; None if one of them cannot be opened."""
    found = []
    for part in parts:
        known = _stored(part, store)
        try:
            source = open_source(
                workflow, part, known.attributes if known else None, known.inventory() if known else None
            )
        except InputError:
            return None
        found.append(source.values(0, len(source)))
    return {name: np.concatenate([values[name] for values in found]) for name in found[0]}
