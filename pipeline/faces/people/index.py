"""`reelgraph index`: an approximate index over the faces of many stores, for fast answers.

It is a folder. `index.faiss` and `lists.ivf` are faiss's: an inverted file of unit vectors, a byte per component, read
through a memory map. `index.json` says which rows are which faces, and how to recognise a store that has changed. The
index only nominates faces; their distances are computed from the stores.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from pipeline.errors import InputError, UsageError
from pipeline.faces.people.find import embedding_key
from pipeline.faces.people.pictures import Recipe
from pipeline.faces.people.search import Hits, Query, timed
from pipeline.files.checksum import sealed, unseal
from pipeline.files.regular import open_file, read_file
from pipeline.files.whole import PARTIAL, made_folder, to_json
from pipeline.machine.cores import available_cores
from pipeline.store.nodes import located
from pipeline.store.pieces import Piece, for_each, rows_of
from pipeline.store.read import RunInput
from pipeline.store.read import open as open_store

FORMAT = 1
INDEX_FILE, LISTS_FILE, FACTS_FILE = "index.faiss", "lists.ivf", "index.json"

_KIND = b"IwSq"
"""First bytes of INDEX_FILE: an IndexIVFScalarQuantizer."""
BLOCK_FACES = 1_000_000
"""Faces added in memory before they go to disk: 136 MB of codes and ids at 128 components."""
_TRAINING_PER_LIST = 64
"""Training vectors for each centre; faiss recommends 39 to 256."""
_TRAINING_PIECES = 64
"""Number of places in the stores that give training vectors."""
_PROBED_SHARE = 32
"""By default one list in this many is searched, at least _LEAST_PROBES."""
_LEAST_PROBES = 16
_CODE_SLACK = 0.01
"""Error that the byte codes may add to a cosine, with a margin: the search reaches this much farther."""
_NOMINATED = 4
"""Multiple of the wanted number of faces that is nominated if no face is near enough."""


@dataclass(frozen=True)
class Entry:
    """The faces of one input."""

    out: str
    """Absolute path of the store."""
    input: str
    first: int
    """Id of its first face; the others follow in order."""
    faces: int
    fingerprint: str


@dataclass(frozen=True)
class Facts:
    """The contents of an index."""

    model: str
    align: str
    key: str
    """`Recipe.key`: detection and embedding of these faces."""
    dimension: int
    lists: int
    faces: int
    """Number of faces of all inputs; faces without an embedding are in no list."""
    entries: tuple[Entry, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds of each step: training, adding, merging."""
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"format": FORMAT, **asdict(self)}


def build(
    outs: Sequence[str | Path],
    path: str | Path,
    *,
    lists: int | None = None,
    block_faces: int = BLOCK_FACES,
    progress: Callable[[int, int], None] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Facts:
    """Build an index of all complete inputs of stores, in bounded memory; replace an earlier one.

    `lists`: the number of lists (by default about a quarter of the root of the number of faces). Raises ReelgraphError
    if faiss is missing, the stores are of several models, or there is no face to index.
    """
    faiss = _faiss()
    entries, pieces, recipe, notes = _gathered(outs, note)
    n_faces = sum(entry.faces for entry in entries)
    if not n_faces:
        raise InputError(f"there is no face to index in {', '.join(map(str, outs))}")
    # By default a quarter of the root of the number of faces, as a power of two. Sorting a face into its list costs as
    # many distances as there are lists. Searching the longer lists costs little (a byte per component).
    usual = 1 << round(math.log2(max(1.0, math.sqrt(n_faces) / 4)))
    place = Path(path).expanduser()
    aside = place.with_name(f"{place.name}.{os.getpid()}{PARTIAL}")
    seconds: dict[str, float] = {}
    blocks: list[Path] = []
    try:
        made_folder(aside.parent, place)
        aside.mkdir()
        with timed(seconds, "train"):
            index = _trained(faiss, max(1, min(lists or usual, n_faces // 39)), pieces)
        with timed(seconds, "add"):
            for piece, (vectors, rows) in for_each(pieces, lambda _, faces: _unit(faces), available_cores()):
                index.add_with_ids(vectors, piece.start + rows.astype(np.int64))
                if progress is not None:
                    progress(piece.stop, n_faces)
                if index.ntotal >= block_faces or piece.stop == n_faces:
                    blocks.append(aside / f"block{len(blocks)}.faiss")
                    faiss.write_index(index, str(blocks[-1]))
                    index.reset()
        with timed(seconds, "merge"), _quiet():
            from faiss.contrib.ondisk import merge_ondisk

            merge_ondisk(index, [str(block) for block in blocks], str(aside / LISTS_FILE))
            faiss.write_index(index, str(aside / INDEX_FILE))
            for block in blocks:
                block.unlink()
        rounded = {name: round(value, 2) for name, value in seconds.items()}
        made = (recipe.model, recipe.align, recipe.key, index.d, index.nlist, n_faces)
        facts = Facts(*made, tuple(entries), rounded, tuple(notes))
        (aside / FACTS_FILE).write_bytes(to_json(sealed(facts.as_dict())))
        _replace(aside, place)
    except OSError as err:
        raise InputError(f"cannot write the index {place}: {err.strerror or err}; choose another place") from err
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return facts


class FaceIndex:
    """An index that `build` made, opened for queries."""

    def __init__(self, path: str | Path, probes: int | None = None) -> None:
        """Open an index. `probes`: number of lists to search for each query.

        Raises InputError if there is no index, UsageError if faiss is missing.
        """
        self.path = Path(path).expanduser()
        self.facts = _read_facts(self.path)
        faiss = _faiss()
        # Refuse all but the one kind that `build` writes: faiss has readers for many more, which trust the file.
        try:
            with open_file(self.path / INDEX_FILE) as file:
                kind = file.read(len(_KIND))
        except OSError as err:
            text = f"the index {self.path} is damaged ({err.strerror}); make it again: reelgraph index"
            raise InputError(text) from err
        if kind != _KIND:
            raise InputError(f"the index {self.path} is damaged (its kind is {kind!r}); make it again: reelgraph index")
        # Lists on disk are mapped anyway; if asked to map the rest as well, faiss 1.15 crashes on them.
        flags = faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_ONDISK_SAME_DIR
        try:
            with _quiet():
                self._index = faiss.read_index(str(self.path / INDEX_FILE), flags)
        except RuntimeError as err:
            raise InputError(f"the index {path} is damaged; make it again: reelgraph index") from err
        self._index.nprobe = min(self.facts.lists, probes or max(_LEAST_PROBES, self.facts.lists // _PROBED_SHARE))
        self._entries = {(entry.out, entry.input): entry for entry in self.facts.entries}
        self._recipes: dict[Path, Recipe] = {}
        self._nominated: dict[bytes, npt.NDArray[np.int64]] = {}

    @property
    def outs(self) -> list[str]:
        """Stores whose faces it holds."""
        return list(dict.fromkeys(entry.out for entry in self.facts.entries))

    def lookup(self, item: RunInput, query: Query) -> tuple[Hits | None, str]:
        """Return faces of an input with their exact distances; or None and the reason why the index cannot be used.

        The hits are those of `search.nearest_in`, without faces that the index does not nominate.
        """
        if query.metric == "euclidean":
            return None, "the index holds directions only, but euclidean distances need lengths"
        entry = self._entries.get((str(item.store_path), item.name))
        if entry is None:
            return None, "it is not in the index; run reelgraph index again"
        store = item.store_path
        if store not in self._recipes:  # made once for all inputs of a store
            self._recipes[store] = Recipe.of_store(open_store(store).attributes, str(store))
        recipe = self._recipes[store]
        pieces = item.pieces("embedding")
        n_faces = pieces[-1].stop if pieces else 0
        if recipe.key != self.facts.key or _fingerprint(item, recipe, n_faces) != entry.fingerprint:
            return None, "it has changed since the index was made; run reelgraph index again"
        ids = self.nominated(query)
        first, last = np.searchsorted(ids, [entry.first, entry.first + entry.faces])
        rows = ids[first:last] - entry.first
        faces = rows_of(pieces, rows, available_cores())
        if faces is None:
            return Hits(rows, np.empty(0)), ""
        return Hits(rows, query.distances(faces)), ""

    def nominated(self, query: Query) -> npt.NDArray[np.int64]:
        """Return the ids, ascending, of all faces of the index that may be near enough, and of the nearest."""
        key = query.vectors.tobytes() + f"{query.limit()} {query.top}".encode()
        if key not in self._nominated:
            vectors = np.ascontiguousarray(query.vectors)
            # For unit vectors the squared distance is twice the cosine distance.
            _, _, within = self._index.range_search(vectors, 2 * (query.limit() + _CODE_SLACK))
            _, nearest = self._index.search(vectors, min(_NOMINATED * query.top, max(1, self._index.ntotal)))
            ids = np.unique(np.concatenate([within, nearest.ravel()]).astype(np.int64))
            self._nominated[key] = ids[ids >= 0]
        return self._nominated[key]


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as err:
        raise UsageError("an index needs faiss: pip install 'faiss-cpu>=1.8' (reelgraph[index])") from err
    return faiss


def _gathered(
    outs: Sequence[str | Path], note: Callable[[str], None]
) -> tuple[list[Entry], list[Piece], Recipe, list[str]]:
    """Return all usable inputs, the pieces of their embeddings by ids of the index, their recipe, and notes."""
    entries: list[Entry] = []
    pieces: list[Piece] = []
    recipes: dict[str, tuple[Recipe, str]] = {}
    notes: list[str] = []
    first = 0
    for out in dict.fromkeys(str(located(out)) for out in outs):
        run = open_store(out)
        recipe = Recipe.of_store(run.attributes, out)
        recipes.setdefault(recipe.key, (recipe, out))
        for item in run.inputs.values():
            if not item.complete or "embedding" not in item.arrays:
                notes.append(f"{out}, {item.name}: not complete, left out")
                note(notes[-1])
                continue
            own = item.pieces("embedding")
            pieces += [replace(piece, start=first + piece.start, stop=first + piece.stop) for piece in own]
            n_faces = own[-1].stop if own else 0
            entries.append(Entry(out, item.name, first, n_faces, _fingerprint(item, recipe, n_faces)))
            first += n_faces
    if len(recipes) > 1:
        shown = " and ".join(f"{recipe.model} (align {recipe.align}, {out})" for recipe, out in recipes.values())
        raise UsageError(f"an index is of faces that were found and embedded in one way; these stores: {shown}")
    if not entries:
        raise InputError(f"there is no complete input to index in {', '.join(map(str, outs)) or 'no store'}")
    ((recipe, _),) = recipes.values()
    return entries, pieces, recipe, notes


def _fingerprint(item: RunInput, recipe: Recipe, n_faces: int) -> str:
    """Return a hash of an input's embeddings: the video, the recipe, and the sizes of the compressed files.

    Times of change would differ in a copy of a store.
    """
    folder = item.store_path / item.name / "embedding"
    sizes = [file.stat().st_size for file in sorted((folder / "c").rglob("*")) if file.is_file()]
    facts = [item.attributes.get("fingerprint"), embedding_key(item, recipe), n_faces, sizes]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _unit(faces: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the vectors at length 1, and the rows that have one."""
    length = np.sqrt(np.einsum("ij,ij->i", faces, faces))
    rows = np.flatnonzero(np.isfinite(length) & (length > 0))
    return np.ascontiguousarray(faces[rows] / length[rows, None], np.float32), rows


def _trained(faiss: Any, lists: int, pieces: Sequence[Piece]) -> Any:
    """Return an empty index whose lists have their centres."""
    wanted = _TRAINING_PER_LIST * lists
    chosen = [pieces[k] for k in np.unique(np.linspace(0, len(pieces) - 1, _TRAINING_PIECES).round().astype(int))]
    each = -(-wanted // len(chosen))

    def some(piece: Piece, faces: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        step = max(1, len(faces) // each)
        return _unit(np.asarray(faces[::step][:each]))[0]

    sample = np.concatenate([vectors for _, vectors in for_each(chosen, some, available_cores())])
    if not len(sample):
        raise InputError("no face of these stores has an embedding; there is nothing to index")
    dimension = sample.shape[1]
    kind = (max(1, min(lists, len(sample))), faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_L2)
    index = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatL2(dimension), dimension, *kind)
    index.cp.min_points_per_centroid = 1  # small archives have few faces; do not warn about that
    index.train(sample)
    return index


def _replace(made: Path, place: Path) -> None:
    """Put a folder in the place of an earlier index. Raises OSError, or InputError if another file is there."""
    if not place.exists():
        os.replace(made, place)
        return
    _read_facts(place)
    others = {entry.name for entry in place.iterdir()} - {INDEX_FILE, LISTS_FILE, FACTS_FILE}
    if others or place.is_symlink():
        what = "it is a link" if place.is_symlink() else f"it holds {min(others)!r} too"
        raise InputError(f"the index {place} is not replaced: {what}; remove it yourself or choose another place")
    old = place.with_name(f"{place.name}.{os.getpid()}.old{PARTIAL}")
    os.replace(place, old)
    os.replace(made, place)
    shutil.rmtree(old, ignore_errors=True)


def _read_facts(path: Path) -> Facts:
    if not (path / FACTS_FILE).is_file():
        raise InputError(f"{path} is not an index of reelgraph; make one: reelgraph index OUT... --out {path}")
    try:
        found = unseal(read_file(path / FACTS_FILE))
        if found.flaw or found.content.pop("format") != FORMAT:
            raise ValueError(found.flaw or "another format")
        return TypeAdapter(Facts).validate_python(found.content)
    except ValidationError as err:
        first = err.errors()[0]
        raise InputError(
            f"the index {path} is damaged ({'.'.join(map(str, first['loc']))}: {first['msg'].lower()}); "
            "make it again: reelgraph index"
        ) from err
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
        raise InputError(f"the index {path} is damaged ({err}); make it again: reelgraph index") from err


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence faiss, which prints from C to standard output, the place of --json."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        with contextlib.suppress(OSError):
            ctypes.CDLL(None).fflush(None)  # C's buffer would be printed later
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
