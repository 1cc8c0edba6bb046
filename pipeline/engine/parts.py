"""Inputs that grow or move: what came later is an input of its own, so that what is stored stays as it is."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from pipeline.engine.source import OF, InputRef, StoredRef
from pipeline.engine.workflow import Workflow
from pipeline.errors import InputError, StoreError
from pipeline.store.read import RunInput
from pipeline.store.remove import remove_items
from pipeline.store.run import InputStore, RunStore
from pipeline.text import plural, plural_of

_SHOWN = 5
"""Inputs at another path that have a line each."""


def find_moved(
    workflow: Workflow, refs: Sequence[InputRef], store: RunStore, note: Callable[[str], object]
) -> None:
    """Let the store know its inputs again that lie at another path than before, as in a folder that was renamed.

    `note` is called with a line on each, or on the first if there are many.
    """
    known = store.input_paths()
    new = [ref for ref in refs if ref.path not in known]
    paths = known.difference(ref.path for ref in refs) if new else ()
    gone = [path for path in paths if path.rpartition("#")[0] not in known and not os.path.lexists(path)]
    lost = {name: RunInput(store.path, name) for name in sorted(str(store.find_input(path)) for path in gone)}
    lines, moves = [], {}
    for ref in new if lost else ():
        try:
            found = workflow.source.moved(ref, workflow.source_options, lost)
        except (InputError, OSError, StoreError):  # opening it says why; a damaged input is not one of this run
            continue
        if found is not None:
            name, facts = found
            before = str(lost.pop(name).attributes["path"])
            moves[before] = ref.path, facts
            lines.append(f"{name}: {before} is {ref.path} now")
    if moves:
        store.move_inputs(moves)
    for line in lines if len(lines) <= _SHOWN else [f"{len(lines)} inputs lie at another path; {lines[0]}"]:
        note(line)


def with_parts(
    workflow: Workflow, refs: Sequence[InputRef], store: RunStore, note: Callable[[str], object]
) -> Iterator[InputRef]:
    """Yield the inputs; after each one that grew its later parts, those that the store has and a new one.

    `note` is called with a line on what is gone, or why an input could not be searched again.
    """
    for ref in refs:
        yield ref
        paths = list(_stored(ref, store))
        parts = [(path, store.input(str(store.find_input(path)))) for path in paths]
        listed = [(part, content) for _, part in parts if (content := part.inventory()) is not None]
        if not parts:
            continue
        for path, part in parts[1:]:
            yield InputRef(path, part.name)
        try:
            later, gone = None, None
            if len(listed) < len(parts):
                bare = [part for _, part in parts if part.inventory() is None]
                later = workflow.source.grown(ref, workflow.source_options, bare[-1].attributes)
            if listed:
                known = workflow.source.as_stored(ref, [part.attributes for part, _ in listed])
                inventories = _recognised(workflow, known, listed, store, note)
                later, gone = workflow.source.later(known, workflow.source_options, inventories)
        except InputError as err:
            note(str(err))
            continue
        if gone is not None:
            note(gone)
        if later is not None:
            yield replace(later, path=_path(ref, len(parts) + 1), name=f"{ref.name}-{len(parts) + 1}")


def _recognised(
    workflow: Workflow,
    ref: InputRef,
    listed: Sequence[tuple[InputStore, bytes]],
    store: RunStore,
    note: Callable[[str], object],
) -> list[bytes]:
    """Return the inventories of an input's parts, with new items that are equal to stored ones, and store them."""
    reads = [partial(part.read_rows, start=0, stop=None) if part.is_complete else None for part, _ in listed]
    before = [content for _, content in listed]
    now, count = workflow.source.recognised(ref, workflow.source_options, before, reads)
    for (part, content), changed in zip(listed, now, strict=True):
        if changed != content and store.lock is not None:
            _put(part, changed)
    if count:
        note(f"{ref.path}: {plural(count, f'new {workflow.noun}')} with the content of stored ones: not computed again")
    return now


def _put(part: InputStore, inventory: bytes) -> None:
    """Store another inventory of the same items."""
    part.update(**part.write_inventory(inventory, same_items=True))
    part.sweep_inventories()


def over(
    workflow: Workflow, refs: Sequence[InputRef], store: RunStore, note: Callable[[str], object]
) -> Iterator[StoredRef]:
    """Yield the inputs of a further pass: one for each complete input that was named, and for each later part of it.

    `note` is called with a line on what has to wait.
    """
    kind = workflow.source_kind
    for ref in refs:
        inputs: dict[str, RunInput] = {}
        for path in _stored(ref, store):
            name = str(store.find_input(path))
            if not store.input(name).is_complete:
                note(f"{name}: its {kind} wait until it is complete")
                break
            inputs[path] = RunInput(store.path, name)
        parts = tuple(inputs.values())
        for k, (path, part) in enumerate(inputs.items(), 1):
            yield StoredRef(f"{path}#{kind}", f"{part.name}-{kind}", inputs=parts[:k], later=parts[k:])


def prune(workflow: Workflow, refs: Sequence[InputRef], store: RunStore) -> Iterator[str]:
    """Remove items that are no longer there or have changed, and yield a line on each input that lost some.

    What has changed is then new to its input, and done again. Raises InputError if all items of an input
    are gone, which an unmounted disk looks like.
    """
    for ref in refs:
        found = []
        for path in _stored(ref, store):
            part = store.input(str(store.find_input(path)))
            inventory = part.inventory()
            if inventory is None:
                continue
            if not part.is_complete:
                yield f"{part.name}: nothing is removed before it is complete; run --prune again then"
                continue
            read = partial(part.read_rows, start=0, stop=None)
            known = workflow.source.as_stored(ref, [part.attributes])
            if (gone := workflow.source.gone(known, workflow.source_options, inventory, read)) is not None:
                found.append((part, *gone, gone[2] != inventory))
        if sum(len(absent) for _, absent, *_ in found) and all(absent.all() for _, absent, *_ in found):
            raise InputError(
                f"{ref.path} holds none of the {plural_of(workflow.noun)} of the store any more; nothing was removed. "
                "Is its disk mounted? To do without them, leave this input out, or choose another --out"
            )
        for part, absent, changed, inventory, is_another in found:
            is_gone = absent | changed
            if not is_gone.any():
                if is_another:
                    _put(part, inventory)
                    yield f"{part.name}: copies of its {plural_of(workflow.noun)} removed (gone, or changed)"
                continue
            made_of_it = [one for one in store.input_names() if part.name in store.input(one).attributes.get(OF, ())]
            for name in made_of_it:  # first: they count items that are about to move
                store.drop_input(name)
                yield f"{name}: removed, for its {plural_of(workflow.noun)} are others now; a run makes it again"
            remove_items(store, part.name, is_gone, inventory)
            # Facts of the whole input go: it is another now.
            whole = {node.name for node in workflow.input_stages}
            part.update(
                stages={name: facts for name, facts in part.attributes.get("stages", {}).items() if name not in whole}
            )
            count = plural(int(is_gone.sum()), workflow.noun)
            yield f"{part.name}: {count} of {len(is_gone)} removed (gone, changed, or to be read again)"


def _stored(ref: InputRef, store: RunStore) -> Iterator[str]:
    """Yield the paths by which the store knows an input and its later parts.

    Raises StoreError if one before the last is gone: what the others hold would be taken for new, and stored twice.
    """
    number = 1
    while store.find_input(_path(ref, number)) is not None:
        yield _path(ref, number)
        number += 1
    begin = f"{ref.path}#"
    paths = [path for path in store.input_paths() if path.startswith(begin) and path.removeprefix(begin).isdecimal()]
    if left := sorted(str(store.find_input(path)) for path in paths if int(path.removeprefix(begin)) > number):
        folders = " ".join(shlex.quote(f"{store.path}/{name}") for name in left)
        raise StoreError(
            f"{ref.path}: the store has {', '.join(left)}, which continue a part that is gone; restore it, "
            f"or remove these too and run again: rm -r {folders}"
        )


def _path(ref: InputRef, number: int) -> str:
    return ref.path if number == 1 else f"{ref.path}#{number}"
