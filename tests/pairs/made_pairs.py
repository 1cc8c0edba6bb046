"""Chunks of pairs, made by hand; key points of photographs; scenes whose geometry is known."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.engine.stage import Chunk

Picture = dict[str, Any]
"""Arrays of one picture, by their names in the first pass."""


def chunk(
    pictures: Sequence[Picture], pairs: Sequence[tuple[int, int]], unread: Sequence[int] = (), **more: Any
) -> Chunk:
    """Return a chunk of these pairs; `unread` pictures were not decoded."""
    arrays: dict[str, Any] = {}
    for side, of_side in zip("ab", np.array(pairs, np.int32).reshape(-1, 2).T, strict=True):
        arrays[side] = of_side
        for name in pictures[0]:
            rows = [pictures[at][name] for at in of_side]
            arrays[f"{side}_{name}"] = rows if np.ndim(pictures[0][name]) else np.array(rows)
        arrays[f"{side}_n_keypoints"] = np.array(
            [len(next(value for value in pictures[at].values() if np.ndim(value))) for at in of_side], np.int32
        )
    decoded = np.array([not set(pair) & set(unread) for pair in pairs], bool)
    return Chunk("made", 0, np.arange(len(pairs)), None, decoded, {**arrays, **more})


def all_pairs(n: int) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(n), 2))


def of_pairs(found: dict[str, np.ndarray], count: str, name: str) -> list[np.ndarray]:
    """Return the rows of each pair."""
    return np.split(found[name], np.cumsum(found[count])[:-1])


def photographs(data: Path, folder: str) -> list[Path]:
    """Return the photographs of a folder of the test data, or skip the test."""
    found = sorted((data / "pairs" / folder).glob("*"))
    if not found:
        pytest.skip(f"no test data at {data / 'pairs' / folder}")
    return found


@lru_cache
def sift(path: Path, most: int) -> Picture:
    """Return the `most` strongest key points of a photograph, points as stored: 0.5 at the centre of a pixel."""
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    points, descriptors = cv2.SIFT_create().detectAndCompute(grey, None)
    kept = np.argsort([-point.response for point in points], kind="stable")[:most]
    keypoint = np.array([points[at].pt for at in kept], np.float32) + np.float32(0.5)
    height, width = grey.shape
    return {"keypoint": keypoint, "descriptor": descriptors[kept].astype(np.uint8), "width": width, "height": height}


@dataclass(frozen=True)
class Scene:
    """Points seen by two cameras: some are seen, others made up."""

    a: np.ndarray
    b: np.ndarray
    is_true: np.ndarray
    exact_a: np.ndarray
    exact_b: np.ndarray
    models: dict[str, np.ndarray]
    sizes: tuple[tuple[int, int], tuple[int, int]] = ((1600, 1200), (1400, 1000))
    focals: tuple[float, float] = (1200.0, 1000.0)

    @property
    def pictures(self) -> list[Picture]:
        return [
            {"keypoint": points, "width": size[0], "height": size[1]}
            for points, size in zip((self.a, self.b), self.sizes, strict=True)
        ]

    @property
    def chunk(self) -> Chunk:
        """One pair, whose i-th key points match."""
        n = len(self.a)
        return chunk(self.pictures, [(0, 1)], n_matches=np.array([n]), match=np.stack([np.arange(n)] * 2, axis=1))


def scene(
    n: int, outliers: float, noise: float = 0.0, plane: bool = False, seed: int = 0, factor: float = 0.0
) -> Scene:
    """Return a scene of n points; with `plane` all lie on one. `factor`: focal lengths by the longest side."""
    rng = np.random.default_rng(seed)
    places = rng.uniform([-2, -1.5, 4], [2, 1.5, 9], (n, 3))
    normal, distance = np.array([-0.2, 0.1, 1]), 5.0
    if plane:
        places[:, 2] = (distance - places[:, :2] @ normal[:2]) / normal[2]
    rotation, shift = cv2.Rodrigues(np.array([0.05, 0.2, -0.03]))[0], np.array([-0.8, 0.1, 0.2])
    sizes = Scene.sizes
    focals = tuple(factor * max(size) for size in sizes) if factor else Scene.focals
    cameras = [
        np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])
        for focal, size in zip(focals, sizes, strict=True)
    ]
    exact_a, exact_b = _seen(cameras[0], places), _seen(cameras[1], places @ rotation.T + shift)
    a, b = (points + rng.normal(0, noise, points.shape) for points in (exact_a, exact_b))
    is_true = rng.permutation(n) >= outliers * n
    b[~is_true] = rng.uniform([0, 0], sizes[1], (n, 2))[~is_true]
    cross = np.array([[0, -shift[2], shift[1]], [shift[2], 0, -shift[0]], [-shift[1], shift[0], 0]])
    essential = cross @ rotation
    inverse = [np.linalg.inv(camera) for camera in cameras]
    models = {
        "essential": essential,
        "fundamental": inverse[1].T @ essential @ inverse[0],
        "homography": cameras[1] @ (rotation + np.outer(shift, normal) / distance) @ inverse[0],
    }
    return Scene(
        a.astype(np.float32), b.astype(np.float32), is_true, exact_a, exact_b, models, sizes, (focals[0], focals[1])
    )


def _seen(camera: np.ndarray, places: np.ndarray) -> np.ndarray:
    seen = places @ camera.T
    return np.asarray(seen[:, :2] / seen[:, 2:])
