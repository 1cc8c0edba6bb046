"""The proof that a person is gone: every array of the stores is read again, from the first row to the last."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError
from pipeline.faces.people.forget import FACES, Alike, EmbeddingKind, Search, Who, embeddings, rows_of, sameness
from pipeline.faces.people.registry import Registry
from pipeline.faces.people.sameness import EQUAL_DISTANCE, Sameness
from pipeline.files.lock import LOCK_FILE
from pipeline.store.nodes import CHUNKS, NODE_FILE, located
from pipeline.store.remove import Removal, blocks
from pipeline.store.run import InputStore, RunStore, removing
from pipeline.text import plural


@dataclass
class Proof:
    """The arrays that were read again, and the problems that were found."""

    inputs: int = 0
    arrays: int = 0
    rows: int = 0
    """Rows of all arrays together."""
    embeddings: int = 0
    """Embeddings that were compared with the removed ones, those in chunks of incomplete inputs among them."""
    problems: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    """Files and folders in the stores that belong to none of their arrays."""

    @property
    def holds(self) -> bool:
        return not self.problems


def prove(outs: Sequence[Path], searched: Search) -> Proof:
    """Read all stores again. A damaged array is a problem: an array that cannot be read proves nothing."""
    proof, who = Proof(), searched.who
    matcher = sameness(searched.vectors)
    for out in dict.fromkeys(located(out) for out in outs):
        store = RunStore.open(out, mode="r")
        names = store.input_names()
        for source in map(store.input, names):
            proof.inputs += 1
            try:
                if source.attributes.get("complete"):
                    _check_complete(proof, source, who, matcher)
                else:
                    _check_chunks(proof, source, matcher)
            except StoreError as err:
                proof.problems.append(str(err))
        others = (entry for entry in os.scandir(store.path) if entry.name not in {NODE_FILE, *names})
        proof.unread += [entry.path for entry in others if not entry.name.startswith(LOCK_FILE)]
    if who.registry is not None and who.id is not None:
        registry = Registry.load(who.registry)
        known = {*registry.people, *registry.merged, *(pin.person for pin in registry.pins)}
        known |= {number for pair in registry.apart for number in pair}
        if known & {*who.ids} or not {*who.ids} <= {*registry.forgotten} or registry.history:
            proof.problems.append(f"the registry {who.registry} still knows {who}")
    return proof


def _check_complete(proof: Proof, source: InputStore, who: Who, matcher: Mapping[EmbeddingKind, Sameness]) -> None:
    group = source.group()

    def wrong(what: str) -> None:
        proof.problems.append(f"{source.name!r} in {source.path}: {what}")

    folders = {entry.name for entry in os.scandir(source.folder) if entry.is_dir()}
    surplus = folders - group.arrays.keys() - {CHUNKS}
    if surplus or removing(group.attributes):
        wrong(f"{', '.join(sorted(surplus)) or 'a removal'} is left over; open it again")
    rows: dict[str, set[int]] = {}
    same = 0
    for name, content in group.arrays.items():
        one = matcher.get(EmbeddingKind.of(content)) if name == "embedding" else None
        count = 0
        for _, block in blocks(source, name):
            count += len(block)
            if one is not None:
                proof.embeddings += len(block)
                same += int(one.same(block).sum())
        proof.arrays += 1
        proof.rows += count
        rows.setdefault(content["dimension_names"][0], set()).add(count)
        names = content.get("attributes", {}).get("names")
        if isinstance(names, dict) and {str(number) for number in who.ids} & names.keys():
            wrong(f"the array {name!r} still names {who}")
    if same:
        wrong(f"{same} embeddings are within {EQUAL_DISTANCE:g} of a removed one")
    left = int(rows_of(source, who).sum())
    if left:
        wrong(f"{left} faces of {who} are left")
    # The arrays that are left must still belong together.
    if any(len(counts) > 1 for counts in rows.values()):
        wrong(f"arrays of one dimension have different numbers of rows: {rows}")
    if "n_faces" in group.arrays and rows.get("face") != {int(source.read_rows("n_faces", 0, None).sum())}:
        wrong(f"n_faces does not add up to the {rows.get('face')} faces there are")
    for name in FACES.pointers.values():
        if name in group.arrays and (source.read_rows(name, 0, None) >= max(rows["face"])).any():
            wrong(f"{name!r} points beyond the last face")


def _check_chunks(proof: Proof, source: InputStore, matcher: Mapping[EmbeddingKind, Sameness]) -> None:
    same = 0
    for kind, _, block in embeddings(source, matcher):
        proof.embeddings += len(block)
        same += int(matcher[kind].same(block).sum())
    if same:
        proof.problems.append(
            f"{source.name!r} in {source.path} is not complete and has {same} embeddings within {EQUAL_DISTANCE:g} of "
            "a removed one; run it to its end, then `reelgraph people`, then forget again"
        )


def as_dict(searched: Search, done: Mapping[tuple[Path, str], Removal] | None, proof: Proof | None) -> dict[str, Any]:
    """Return the values of `--json`; `done` and `proof` are None if nothing was removed yet."""

    def rewritten(removal: Removal) -> dict[str, Any]:
        return {
            "frames": removal.frames,
            "thumbnails": thumbnails_of(removal),
            "arrays": list(removal.arrays),
            "files_deleted": removal.files,
            "chunks_dropped": removal.chunks_dropped,
        }

    who = searched.who
    return {
        "person": who.id,
        "merged": list(who.ids[1:]),
        "name": who.name,
        "registry": str(who.registry) if who.registry else None,
        "removed": done is not None,
        "faces": searched.faces,
        "inputs": [
            {
                "store": str(one.store),
                "input": one.input,
                "path": one.path,
                "faces": len(one.rows),
                "same_embedding": one.same,
                "faces_before": one.faces,
                "faces_after": one.faces - len(one.rows),
            }
            | ({} if done is None else rewritten(done[one.store, one.input]))
            for one in searched.found
        ],
        "alike": [{**vars(one), "store": str(one.store)} for one in searched.alike],
        "proof": None if proof is None else {**vars(proof), "holds": proof.holds, "within": EQUAL_DISTANCE},
        "remains": remains(searched),
    }


def thumbnails_of(removal: Removal) -> int:
    """Return the number of thumbnails that were removed."""
    before, after = removal.rows.get("shot", (0, 0))
    return before - after


def remains(searched: Search) -> list[str]:
    """Return lines on data outside the stores, which is not removed."""
    who = searched.who
    films, pictures = (
        sorted({one.path for one in searched.found if len(one.rows) and one.is_film == is_film})
        for is_film in (True, False)
    )
    found = [
        f"pictures of {who} in the gallery {folder}, and their names in the array identity"
        for folder in searched.galleries
    ]
    found += [
        f"pictures of {name} in the gallery {folder}: find gave that name to faces of {who}"
        for folder, name in searched.other_names
    ]
    if films:
        found.append(f"the videos themselves: {', '.join(films)}")
    if pictures:
        found.append(f"the pictures themselves: {', '.join(pictures)}")
    made = "reports, contact sheets, videos, clips, tables, search indices, backups"
    found.append(f"what was made of the stores before: {made}")
    if films or pictures:
        found.append("`run --fresh`, or a new store, would find the faces again, under a new id")
    return found


def lines(searched: Search, done: Mapping[tuple[Path, str], Removal] | None, proof: Proof | None) -> list[str]:
    """Return the receipt for people."""
    verb = "removed" if done is not None else "would be removed"
    inputs = [one for one in searched.found if len(one.rows)]
    shown = [f"{searched.who}: {plural(searched.faces, 'face')} {verb} from {plural(len(inputs), 'input')}"]
    for one in inputs:
        extra = f", {one.same} of them by their very same embedding" if one.same else ""
        text = f"  {one.input} in {one.store}: {len(one.rows)} of {plural(one.faces, 'face')}{extra}"
        if done is not None:
            removal = done[one.store, one.input]
            text += f"; {plural(thumbnails_of(removal), 'thumbnail')}; {plural(len(removal.arrays), 'array')} rewritten"
            text += "; a stage that was being added there starts again" if removal.chunks_dropped else ""
        shown.append(text)
    if done is not None and searched.who.registry and searched.who.id is not None:
        shown.append(f"  {searched.who.registry}: the id stays taken, all else of the person is gone")
    if proof is not None:
        read = f"{plural(proof.arrays, 'array')} of {plural(proof.inputs, 'input')} read again, "
        read += plural(proof.rows, "row")
        if proof.holds:
            compared = f"none of {plural(proof.embeddings, 'embedding')} is within {EQUAL_DISTANCE:g} of a removed one"
            shown.append(f"proven: {read}: none of this person; {compared}")
            if proof.unread:
                shown.append(f"  not read, no arrays of a store: {', '.join(proof.unread)}")
        else:
            shown += [f"NOT PROVEN ({read}):", *(f"  {problem}" for problem in proof.problems)]
    shown += [line for one in searched.alike if (line := _alike_line(one, searched.who))]
    return [*shown, "not touched:", *(f"  {text}" for text in remains(searched))]


def _alike_line(one: Alike, who: Who) -> str:
    where = f"{one.input} in {one.store}"
    if one.state == "no embeddings":
        return f"not compared: {where} has no embeddings of this model"
    if one.state == "people":
        # The people of other faces are known, unless only a gallery knows the name.
        left = {number: count for number, count in sorted(one.people.items()) if number < 0 or who.id is None}
        counts = [
            f"{plural(count, 'face')} {'without a person' if number < 0 else f'of person {number}'}"
            for number, count in left.items()
        ]
        return f"left and alike: {', '.join(counts)} in {where}; look at them, they may be the same" if counts else ""
    what, advice = "without the array person", "run"
    if one.state == "incomplete":
        what, advice = "not complete", "run it to its end, then"
    return (
        f"left, for {where} is {what}: {plural(one.faces, 'face')}, {one.alike} of them alike; {advice} "
        "`reelgraph people`, then forget again"
    )
