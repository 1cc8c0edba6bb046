"""One folder with all weights at hand, for this package and for DeepFace."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def data_folder() -> Path:
    """$REELGRAPH_DATA, by default beside this repository; need not exist."""
    return Path(os.environ.get("REELGRAPH_DATA", REPOSITORY.parent / "shared" / "data"))


def link_weights(home: Path, extra: Path) -> Path:
    """Fill `home`, to be DEEPFACE_HOME, with links to DeepFace's usual folder, to `extra` if there is such a folder,
    and to Dlib's weights, which a package carries. Returns the folder of the links."""
    from pipeline.faces.models import zoo
    from pipeline.models.weights import weights_files, weights_folder

    sources = {path.name: path for folder in (extra, weights_folder()) if folder.is_dir() for path in folder.iterdir()}
    sources |= {path.name: path for name in ("Dlib", "dlib") for path in weights_files(zoo.card(name))}
    folder = home / ".deepface" / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in sources.items():
        link = folder / name
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(path.resolve())
    return folder
