"""Transforms of albumentations and torchvision, with masks and boxes; batches of torch. Skipped without these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.errors import UsageError
from pipeline.loader.transforms import Transform
from tests.loader.made_pictures import digest

WITHOUT = "torch, torchvision or albumentations is not installed"
N = 12
PICTURES = np.zeros((N, 40, 60, 3), np.uint8)
MASKS = np.zeros((N, 40, 60), np.uint8)
BOXES = [np.array([[12 + k, 10, 16, 12, k, 5]], np.float32) for k in range(N)]
for number, ((x, y, w, h, *_),) in enumerate(np.array(BOXES, int)):
    PICTURES[number, y : y + h, x : x + w], MASKS[number, y : y + h, x : x + w] = 255, 7


def made(transform: Any, most_workers: int = 0, **options: Any) -> list[Any]:
    """Return the batches of an epoch, the same for each number of workers."""
    found = []
    for workers in range(most_workers + 1):
        with pipeline.Loader(PICTURES, 5, transform, labels=np.arange(N), workers=workers, **options) as loader:
            found.append(list(loader))
    assert all([*map(digest, batches)] == [*map(digest, found[0])] for batches in found)
    return found[0]


def check(batches: list[Any], off: float = 1.0) -> None:
    """Compare masks and boxes with the bright pixels of the pictures."""
    for images, labels, masks, boxes in batches:
        for image, label, mask, box in zip(images, labels, masks, boxes, strict=True):
            bright = image.mean(-1) > image.max() / 2
            assert np.mean(bright != (mask == 7)) < 0.02
            if not len(box):
                assert bright.sum() < 3
                continue
            rows, columns = np.nonzero(bright)
            (x, y, w, h, number, rest) = box[0]
            assert (number, rest) == (label, 5)
            wanted = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert [x, y, x + w, y + h] == pytest.approx(wanted, abs=off)


def test_a_class_of_the_users_own_is_called_as_the_one_it_comes_from() -> None:
    """A transform of torchvision gives an array back as it is, and says nothing."""
    first = type("First", (), {"__module__": "torchvision.transforms.transforms", "__call__": lambda self, x: x})
    second = type("Second", (), {"__module__": "torchvision.transforms.v2._geometry", "__call__": lambda self, x: x})
    module = type("Module", (), {"__module__": "torch.nn.modules.module", "__call__": lambda self, x: x})
    kinds = {first: "pillow", second: "torchvision", module: "torchvision", type("Own", (first,), {}): "pillow"}
    kinds |= {type("Own", (second,), {}): "torchvision", type("Own", (module,), {}): "torchvision"}
    assert {one: Transform(one()).kind for one in kinds} == kinds
    assert Transform(lambda x: x).kind == "function"


def test_torchvision_takes_masks_and_boxes_along() -> None:
    torch, v2 = (
        pytest.importorskip("torch", reason=WITHOUT),
        pytest.importorskip("torchvision.transforms.v2", reason=WITHOUT),
    )

    class Mirrored(v2.Transform):  # type: ignore[misc, name-defined]
        def transform(self, inpt: Any, params: Any) -> Any:
            return v2.functional.horizontal_flip(inpt)

    class Both(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, *given: Any) -> Any:
            return tuple(v2.functional.vertical_flip(one) for one in given)

    beside = {"masks": MASKS, "boxes": BOXES}
    affine = v2.RandomAffine(20, (0.1, 0.1), (0.9, 1.1))
    check(made(v2.Compose([affine, v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)]), 2, **beside))
    check(made(torch.nn.Sequential(v2.RandomRotation(20), v2.RandomVerticalFlip()), **beside))
    check(made(v2.Compose([v2.RandomCrop((24, 24)), v2.SanitizeBoundingBoxes()]), **beside))
    check(made(Both(), **beside))
    found = made(Mirrored(), **beside)
    check(found)
    np.testing.assert_array_equal(found[0][0], PICTURES[found[0][1]][:, :, ::-1])
    two = made(v2.RandomHorizontalFlip(p=1), masks=np.stack([MASKS, MASKS * 0], -1))[0]
    np.testing.assert_array_equal(two[2][..., 0], MASKS[two[1]][:, :, ::-1])
    assert not two[2][..., 1].any()


def test_torchvision_of_the_first_version_gets_pictures_of_pillow() -> None:
    pytest.importorskip("torchvision", reason=WITHOUT)
    from torchvision import transforms as v1

    recipe = v1.Compose([v1.RandomCrop(32, padding=4), v1.ToTensor(), v1.Normalize((0.5,) * 3, (0.5,) * 3)])
    images, _ = made(recipe, 1)[0]
    assert images.shape == (5, 32, 32, 3)
    assert (images.min(), images.max()) == (-1, 1)
    assert made(v1.RandomHorizontalFlip(), grey=True)[0][0].shape == (5, 40, 60, 1)
    with pytest.raises(UsageError, match="do not take masks and boxes along; use torchvision v2"):
        made(v1.RandomHorizontalFlip(), masks=MASKS)


def test_albumentations_takes_masks_and_boxes_along() -> None:
    albumentations = pytest.importorskip("albumentations", reason=WITHOUT)
    tensor = pytest.importorskip("albumentations.pytorch", reason=WITHOUT).ToTensorV2
    beside = {"masks": MASKS, "boxes": BOXES}
    parameters = albumentations.BboxParams("coco")
    turned = albumentations.Affine(rotate=(-20, 20), scale=(0.9, 1.1), p=1)
    check(made(albumentations.Compose([turned, albumentations.HorizontalFlip()], bbox_params=parameters), **beside))
    check(made(albumentations.Compose([albumentations.RandomCrop(24, 24)], bbox_params=parameters), **beside))
    found = made(
        albumentations.Compose(
            [albumentations.HorizontalFlip(), albumentations.Normalize(), tensor()], bbox_params=parameters
        ),
        1,
        **beside,
    )
    assert found[0][0].shape == (5, 40, 60, 3)  # a tensor has its channels first
    check(found)


@pytest.mark.parametrize("function", ["function", "rng"])
def test_a_tensor_of_ones_own_function_has_its_channels_first(function: str) -> None:
    torch = pytest.importorskip("torch", reason=WITHOUT)

    def tensor(picture: np.ndarray) -> Any:
        return torch.from_numpy(picture).permute(2, 0, 1)

    def drawn(picture: np.ndarray, rng: np.random.Generator) -> Any:
        return tensor(picture)

    chosen: Callable[..., Any] = tensor if function == "function" else drawn
    images, labels = made(chosen)[0]
    np.testing.assert_array_equal(images, PICTURES[labels])


def test_batches_of_torch() -> None:
    torch = pytest.importorskip("torch", reason=WITHOUT)
    beside = {"labels": np.arange(N), "masks": MASKS, "boxes": BOXES, "weights": np.arange(N) / 2}
    loader = pipeline.Loader(PICTURES, 5, seed=2, workers=1, **beside)
    with loader:
        found = list(torch.utils.data.DataLoader(loader.torch(), batch_size=None))
    wanted = list(pipeline.Loader(PICTURES, 5, seed=2, workers=0, **beside))
    for (images, labels, masks, boxes, weights), expected in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(images.permute(0, 2, 3, 1), expected[0])
        assert (images.dtype, labels.dtype, weights.dtype) == (torch.float32, torch.int64, torch.float32)
        np.testing.assert_array_equal(masks, expected[2])
        assert [box.tolist() for box in boxes] == [box.tolist() for box in expected[3]]
        np.testing.assert_array_equal(weights, labels / 2)
    for context in ("fork", "spawn"):
        data = torch.utils.data.DataLoader(
            loader.torch(), batch_size=None, num_workers=1, multiprocessing_context=context
        )
        with pytest.raises(UsageError, match="workers of its own"):
            next(iter(data))


def test_a_training_of_torch_takes_the_same_course_for_any_number_of_workers() -> None:
    torch = pytest.importorskip("torch", reason=WITHOUT)
    found = []
    augment = pipeline.Augment(rotation_range=20, horizontal_flip=True, rescale=1 / 255)
    for workers in (0, 2):
        torch.manual_seed(1)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(40 * 60 * 3, 2))
        optimizer, losses = torch.optim.SGD(model.parameters(), 0.01), []
        with pipeline.Loader(PICTURES, 5, augment, labels=np.arange(N) // 6, workers=workers) as loader:
            for _ in range(3):
                for images, labels in loader.torch():
                    optimizer.zero_grad()
                    loss = torch.nn.functional.cross_entropy(model(images), labels)
                    loss.backward()
                    optimizer.step()
                    losses.append(loss.item())
        found.append(losses)
    assert found[0] == found[1]
    assert len(set(found[0])) > 5
