"""Where weights come from, and the cache of the graphs made of them.

The weights of the bundled models travel in pip packages. They are found without importing those packages
(one needs `pkg_resources`, the other TensorFlow), turned into ONNX graphs once, and kept in a cache folder
under names that hold the hash of what went in and of what came out.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from pipeline.errors import ModelError


def cache_folder() -> Path:
    """$REELGRAPH_CACHE, else $XDG_CACHE_HOME/reelgraph, else ~/.cache/reelgraph. Not created here."""
    chosen = os.environ.get("REELGRAPH_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "reelgraph"


def package_file(package: str, relative: str, command: str) -> Path:
    """A file that an installed package carries.

    Raises ModelError naming the file, where it would be and `command`, which fetches it.
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
    """Hash (hex) of the content of some files, in their order; each file is read once per process."""
    if len(paths) == 1:
        return _file_sha256(paths[0])
    return hashlib.sha256("".join(_file_sha256(path) for path in paths).encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    stat = path.stat()
    return _hash_once(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _hash_once(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached_graph(name: str, version: int, sources: Sequence[Path], build: Callable[[], bytes]) -> bytes:
    """The serialised ONNX graph `name`, built from `sources` unless the cache has it.

    `version` is that of the code which builds it. Safe with any number of processes at once: a graph is
    written aside and renamed, the last one wins and all are equal. A file whose content does not match the
    hash in its name is built again. Where the folder cannot be written the graph is built for this process alone.
    """
    key = hashlib.sha256(f"{name} {version} {sha256(sources)}".encode()).hexdigest()[:16]
    folder = cache_folder()
    found = _find(folder, f"{name}-{key}")
    if found is not None:
        return found
    content = build()
    try:
        _write_aside(folder, f"{name}-{key}-{_short_hash(content)}.onnx", content)
    except OSError:
        pass  # a read-only home costs a rebuild per process, no more
    return content


def _find(folder: Path, stem: str) -> bytes | None:
    for path in sorted(folder.glob(f"{stem}-*.onnx")):
        try:
            content = path.read_bytes()
        except OSError:
            continue
        if path.stem == f"{stem}-{_short_hash(content)}":
            return content
    return None


def _short_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _write_aside(folder: Path, name: str, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=folder, prefix=name, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(partial, folder / name)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
