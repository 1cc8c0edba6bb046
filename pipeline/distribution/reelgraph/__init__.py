"""`import reelgraph`: the package `pipeline`, under the name that it is installed by.

Both names are one module, and so are `reelgraph.X` and `pipeline.X` for every submodule: no state exists twice. A
`pipeline.py` in the user's own folder does not matter here. Our package is the one beside this file, and it is
registered as `pipeline` before the user's file can be, because objects that travel to workers are named by it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline import Array as Array
    from pipeline import Axis as Axis
    from pipeline import Chunk as Chunk
    from pipeline import Described as Described
    from pipeline import Export as Export
    from pipeline import InputRef as InputRef
    from pipeline import Job as Job
    from pipeline import Loaded as Loaded
    from pipeline import Panel as Panel
    from pipeline import ReelgraphError as ReelgraphError
    from pipeline import Source as Source
    from pipeline import SourceOptions as SourceOptions
    from pipeline import Stage as Stage
    from pipeline import StageOptions as StageOptions
    from pipeline import __version__ as __version__
    from pipeline import deepface as deepface
    from pipeline import make_demo_clip as make_demo_clip
    from pipeline import open as open
    from pipeline import plan as plan
    from pipeline import run as run

_ALIAS = "reelgraph"
_REAL = "pipeline"


class _SameModules(MetaPathFinder, Loader):
    """Finds `reelgraph.X` and gives the module `pipeline.X` for it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        # `python -m reelgraph` runs the code of __main__ under its own name: Python's usual finder has it.
        if not fullname.startswith(f"{_ALIAS}.") or fullname == f"{_ALIAS}.__main__":
            return None
        return ModuleSpec(fullname, self)

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to Python to make an empty module, whose place the real one takes."""

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = import_module(_REAL + module.__name__.removeprefix(_ALIAS))


def _real_package() -> ModuleType:
    """Return our `pipeline`, imported from beside this file. Raises ImportError if another module has its name."""
    found = sys.modules.get(_REAL)
    if found is None:
        return _imported(_beside())
    if "ReelgraphError" not in getattr(found, "__all__", ()):
        where = getattr(found, "__file__", None) or "another package"
        raise ImportError(
            f"cannot import reelgraph: the name 'pipeline', which its own package has, is taken by {where}; "
            "rename that module"
        )
    return found


def _beside() -> Path:
    """Return the path of our `pipeline/__init__.py`: beside this package in an installation, above it in a clone."""
    here = Path(__file__).resolve()
    places = [folder / _REAL / "__init__.py" for folder in here.parents[1:4]]
    return next(place for place in places if place.is_file())


def _imported(file: Path) -> ModuleType:
    spec = spec_from_file_location(_REAL, file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[_REAL] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[_REAL]
        raise
    return module


sys.modules[__name__] = _real_package()
if not any(type(finder).__name__ == _SameModules.__name__ for finder in sys.meta_path):
    sys.meta_path.insert(0, _SameModules())
