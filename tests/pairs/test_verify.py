"""The stage `verify`: scenes whose geometry is known, points that define no model, photographs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.engine.finding import find_stage
from pipeline.engine.stage import Chunk
from pipeline.pairs.stages.match import Match, MatchOptions
from pipeline.pairs.stages.verify import Verify, VerifyOptions
from pipeline.pairs.verification import METHODS, MINIMUM, Verifier
from tests.pairs.made_pairs import Picture, Scene, all_pairs, chunk, of_pairs, photographs, scene, sift

MODELS = tuple(MINIMUM)


def verified(given: Chunk, **options: Any) -> dict[str, np.ndarray]:
    stage = Verify(VerifyOptions(**options))
    assert set(stage.needs) <= set(given.arrays)
    found = stage.run(Chunk(**{**vars(given), "arrays": {name: given.arrays[name] for name in stage.needs}}))
    assert (found["n_inliers"].dtype, found["model"].dtype, found["inlier"].dtype) == (np.int32, np.float64, bool)
    assert found["model"].shape == (len(given), 3, 3)
    assert found["n_inliers"].tolist() == [part.sum() for part in np.split(found["inlier"], ends(given))]
    assert ((found["n_inliers"] > 0) == np.isfinite(found["model"]).all(axis=(1, 2))).all()
    return found


def ends(given: Chunk) -> np.ndarray:
    return np.cumsum(given["n_matches"])[:-1]


def cameras_of(made: Scene) -> dict[str, Any]:
    """Return the options of an essential matrix that fit a scene."""
    return {"model": "essential", "focal_factor": made.focals[0] / max(made.sizes[0])}


def error(kind: str, model: np.ndarray, made: Scene, shift: float = 0.0) -> np.ndarray:
    """Return the distances in pixels of exact points of a scene from a model; `shift` moves the points."""
    a, b = (np.c_[points + shift, np.ones(len(points))] for points in (made.exact_a, made.exact_b))
    if kind == "homography":
        seen = a @ model.T
        return np.asarray(np.linalg.norm(seen[:, :2] / seen[:, 2:] - b[:, :2], axis=1))
    if kind == "essential":
        inverse = [
            np.linalg.inv([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])
            for focal, size in zip(made.focals, made.sizes, strict=True)
        ]
        model = inverse[1].T @ model @ inverse[0]
    line_b, line_a = a @ model.T, b @ model
    length = np.sqrt((line_b[:, :2] ** 2).sum(axis=1) + (line_a[:, :2] ** 2).sum(axis=1))
    return np.asarray(np.abs((b * line_b).sum(axis=1)) / length)


def a_scene(
    kind: str, outliers: float, noise: float = 0.0, n: int = 300, seed: int = 0
) -> tuple[Scene, dict[str, Any]]:
    made = scene(n, outliers, noise, plane=kind == "homography", seed=seed, factor=0.8)
    return made, cameras_of(made) if kind == "essential" else {"model": kind}


@pytest.mark.parametrize("outliers", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", MODELS)
def test_a_known_scene(kind: str, method: str, outliers: float) -> None:
    """All true matches are inliers, and few made-up ones: those that fit the true model by chance."""
    made, options = a_scene(kind, outliers, noise=0.5)
    found = verified(made.chunk, method=method, **options)
    inlier, model = found["inlier"], found["model"][0]
    assert inlier[made.is_true].mean() > 0.98
    by_chance = (~made.is_true).sum() * (0.001 if kind == "homography" else 8 / 700)
    assert inlier[~made.is_true].sum() <= 3 * by_chance + 2
    assert np.median(error(kind, model, made)) < {"magsac": 0.3, "msac": 1.0, "ransac": 2.0}[method]


@pytest.mark.parametrize("kind", MODELS)
def test_models_are_of_the_points_as_they_are_stored(kind: str) -> None:
    """Without noise a model is exact for points whose first pixel has its centre at 0.5, and not for points at 0."""
    made, options = a_scene(kind, 0.3)
    found = verified(made.chunk, threshold=1, **options)
    model = found["model"][0]
    assert error(kind, model, made).max() < 0.02
    assert error(kind, model, made, shift=-0.5).max() > 0.04
    true = made.models[kind]
    scaled = model / np.linalg.norm(model)
    assert min(np.abs(scaled - sign * true / np.linalg.norm(true)).max() for sign in (1, -1)) < 1e-3
    values = np.linalg.svd(scaled, compute_uv=False)
    if kind != "homography":
        assert values[2] / values[0] < 1e-9
    if kind == "essential":
        assert values[1] / values[0] == pytest.approx(1, abs=1e-3)


def test_cameras() -> None:
    """Focal lengths and centres may be given; by default they are COLMAP's guess and the middle."""
    made = scene(300, 0.3, factor=1.2)
    guessed = verified(made.chunk, model="essential")
    assert error("essential", guessed["model"][0], made).max() < 0.02
    one_size = Scene(**{**vars(made), "sizes": ((1600, 1200), (1600, 1200)), "focals": (1920.0, 1920.0)})
    fixed = Verify(VerifyOptions(model="essential", focal=1920, centre=[800, 600]))
    assert fixed.needs == ("a_keypoint", "b_keypoint", "n_matches", "match")
    by_size = verified(one_size.chunk, model="essential")
    assert fixed.run(one_size.chunk)["model"].tobytes() == by_size["model"].tobytes()
    assert verified(one_size.chunk, model="essential", focal=1920)["model"].tobytes() == by_size["model"].tobytes()
    other = verified(one_size.chunk, model="essential", focal=1000)
    assert other["model"].tobytes() != by_size["model"].tobytes()
    for options in ({}, {"focal": 1000}, {"centre": [1, 2]}):
        assert {"a_width", "b_height"} <= set(Verify(VerifyOptions(model="essential", **options)).needs)
    assert Verify(VerifyOptions()).needs == fixed.needs


@pytest.mark.parametrize("seed", [17, 36, 139, 165, 263, 358])
def test_an_essential_matrix_is_one(seed: int) -> None:
    """Focal lengths are half as long again as the true ones: OpenCV's estimator gives matrices of rank 3 then."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (30, 3)) * [2, 2, 1] + [0, 0, 6]
    turned, moved = cv2.Rodrigues(rng.normal(0, 0.15, 3))[0], rng.normal(0, 0.5, 3)
    seen = [points, points @ turned.T + moved]
    a, b = (800 * one[:, :2] / one[:, 2:] + [400, 300] for one in seen)
    a, b = a + rng.normal(0, 1, a.shape), b + rng.normal(0, 1, b.shape)
    b[:10] = rng.uniform(0, 600, (10, 2))
    camera = np.array([[1200, 0, 400], [0, 1200, 300], [0, 0, 1.0]])
    found = Verifier("essential", "magsac", 4.0, 0.9999, 10_000, 15).verify(a, b, (camera, camera))
    assert found is not None
    model, inlier = found
    values = np.linalg.svd(model, compute_uv=False)
    assert values[1] / values[0] == pytest.approx(1, abs=1e-3)
    assert values[2] / values[0] < 1e-3
    assert inlier[10:].sum() >= 15


def many_scenes(kind: str) -> tuple[list[Picture], list[tuple[int, int]], list[np.ndarray], dict[str, Any]]:
    """Return pictures, pairs of them (some of which repeat), and the matches of each pair."""
    pictures: list[Picture] = []
    options: dict[str, Any] = {}
    for seed in range(8):
        made, options = a_scene(kind, 0.2 + 0.08 * seed, 0.5, 40 + 20 * seed, seed)
        pictures += made.pictures
    rng = np.random.default_rng(0)
    pairs = [(2 * at, 2 * at + 1) for at in (*range(8), 3, 5)]
    matches = []
    for a, _ in pairs:
        n = len(pictures[a]["keypoint"])
        matches.append(np.stack([np.arange(n), np.arange(n)], axis=1)[rng.random(n) < 0.9])
    pairs += [(0, 0), (7, 2)]
    matches += [np.empty((0, 2), np.int64), np.zeros((3, 2), np.int64)]
    return pictures, pairs, matches, options


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", MODELS)
def test_results_depend_on_the_points_alone(kind: str, method: str) -> None:
    """Threads, order, chunks, and OpenCV's own generator of random numbers change nothing."""
    pictures, pairs, matches, options = many_scenes(kind)

    def of(rows: list[int], seed: int) -> dict[str, np.ndarray]:
        cv2.setRNGSeed(seed)
        part = [matches[row] for row in rows]
        given = chunk(
            pictures, [pairs[row] for row in rows], match=np.concatenate(part), n_matches=np.array(list(map(len, part)))
        )
        return verified(given, method=method, most=1000, **options)

    rows = list(range(len(pairs)))
    expected = of(rows, 1)
    models = {row: expected["model"][row].tobytes() for row in rows}
    inliers = dict(zip(rows, np.split(expected["inlier"], np.cumsum(list(map(len, matches)))[:-1]), strict=True))
    assert (expected["n_inliers"][:8] >= 15).sum() >= 6
    rng = np.random.default_rng(3)
    cuts = [np.array_split(rng.permutation(rows), n) for n in (1, 2, 5, 12)]
    jobs = [(part.tolist(), seed) for seed, parts in enumerate(cuts) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for (part, _), found in zip(jobs, pool.map(lambda job: of(*job), jobs), strict=True):
            assert [found["model"][at].tobytes() for at in range(len(part))] == [models[row] for row in part]
            assert found["inlier"].tolist() == np.concatenate([inliers[row] for row in part]).tolist()


def degenerate() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    x, spread, other = rng.uniform(0, 1000, 60), rng.uniform(0, 1000, (60, 2)), rng.uniform(0, 1000, (60, 2))
    line = np.stack([x, 0.3 * x + 20], axis=1)
    one = np.full((60, 2), 7.5)
    nothing = np.full((60, 2), np.nan)
    return {
        "one point": (one, one + 2),
        "one point in a": (one, spread),
        "one point in b": (spread, one),
        "a line": (line, line + 5),
        "a line in a": (line, spread),
        "a line in b": (spread, line),
        "a row of pixels": (np.stack([x, np.full(60, 3.5)], axis=1), np.stack([x + 9, np.full(60, 3.5)], axis=1)),
        "two places": (np.tile(spread[:2], (30, 1)), np.tile(other[:2], (30, 1))),
        "four places": (np.tile(spread[:4], (15, 1)), np.tile(other[:4], (15, 1))),
        "not numbers": (nothing, spread),
        "not numbers in b": (spread, nothing),
        "not numbers but 14": (np.where(np.arange(60)[:, None] < 14, spread, np.nan), spread),
        "infinite": (np.full((60, 2), np.inf), spread),
        "huge": (spread * 1e30, spread * 1e30),
        "tiny": (spread * 1e-30, spread * 1e-30),
        **{f"{n} points": (spread[:n], other[:n]) for n in range(15)},
    }


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", MODELS)
def test_points_that_define_no_model(kind: str, method: str) -> None:
    """Such a pair has no model and no inliers, and a good pair beside it is not disturbed."""
    made, options = a_scene(kind, 0.2, 0.5)
    cases = degenerate()
    pictures = [
        {"keypoint": points.astype(np.float32), "width": 1600, "height": 1200}
        for pair in cases.values()
        for points in pair
    ]
    pictures += made.pictures
    pairs = [(2 * at, 2 * at + 1) for at in range(len(pictures) // 2)]
    count = np.array([len(pictures[a]["keypoint"]) for a, _ in pairs])
    match = np.concatenate([np.stack([np.arange(n)] * 2, axis=1) for n in count])
    found = verified(chunk(pictures, pairs, match=match, n_matches=count), method=method, **options)
    assert dict(zip(cases, found["n_inliers"].tolist(), strict=False)) == dict.fromkeys(cases, 0)
    alone = verified(made.chunk, method=method, **options)
    assert found["model"][-1].tobytes() == alone["model"][0].tobytes()
    few = verified(chunk(pictures, pairs, match=match, n_matches=count), method=method, least=1, **options)
    n = dict(zip(cases, few["n_inliers"].tolist(), strict=False))
    assert [n[f"{points} points"] for points in range(MINIMUM[kind])] == [0] * MINIMUM[kind]  # type: ignore[index]


@pytest.mark.parametrize("kind", MODELS)
def test_matches_at_as_few_places_as_define_a_model(kind: str) -> None:
    """60 matches at 4 places all agree with a homography, whatever the places are; at 8 places that is no chance."""
    made, options = a_scene(kind, 0.0)
    least = MINIMUM[kind]  # type: ignore[index]
    n = {}
    for places in (least, 2 * least):
        at = np.arange(60) % places
        repeated = Scene(**{**vars(made), "a": made.a[at], "b": made.b[at]})
        n[places] = int(verified(repeated.chunk, **options)["n_inliers"][0])
    assert n == {least: 0, 2 * least: 60}


def test_points_that_are_not_numbers_are_left_out() -> None:
    made, options = a_scene("fundamental", 0.2, 0.5)
    made.a[::4] = np.nan
    found = verified(made.chunk, **options)
    assert not found["inlier"][::4].any()
    rest = np.arange(300) % 4 > 0
    without = verified(Scene(**{**vars(made), "a": made.a[rest], "b": made.b[rest]}).chunk, **options)
    assert found["model"].tobytes() == without["model"].tobytes()
    assert found["inlier"][rest].tolist() == without["inlier"].tolist()


def test_an_exception_of_opencv_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise cv2.error("assertion failed")

    made, options = a_scene("fundamental", 0.2)
    monkeypatch.setattr(cv2, "findFundamentalMat", refuse)
    assert verified(made.chunk, **options)["n_inliers"].tolist() == [0]


def test_least_inliers() -> None:
    made, options = a_scene("fundamental", 0.5, n=60)
    n = int(verified(made.chunk, **options)["n_inliers"][0])
    assert n >= 30
    assert verified(made.chunk, least=n, **options)["n_inliers"].tolist() == [n]
    assert verified(made.chunk, least=n + 1, **options)["n_inliers"].tolist() == [0]


def test_repeated_unread_and_empty_pictures() -> None:
    """The matches of `match` go into `verify`, with pictures that repeat, cannot be read, or have no key points."""
    made = scene(200, 0.0, 0.3)
    rng = np.random.default_rng(0)
    descriptor = rng.integers(0, 255, (200, 32)).astype(np.uint8)
    pictures = [{**one, "descriptor": descriptor} for one in made.pictures]
    nothing = {"keypoint": np.empty((0, 2), np.float32), "width": -1, "height": -1, "descriptor": descriptor[:0]}
    pairs = [(0, 1), (0, 2), (2, 2), (1, 0), (3, 1), (0, 1)]
    given = chunk([*pictures, nothing, pictures[0]], pairs, unread=[3])
    matches = Match(MatchOptions()).run(given)
    assert matches["n_matches"].tolist() == [200, 0, 0, 200, 0, 200]
    given = chunk([*pictures, nothing, pictures[0]], pairs, [3], n_matches=matches["n_matches"], match=matches["match"])
    for kind in ("fundamental", "essential"):
        found = verified(given, model=kind, **({"focal_factor": 0.75} if kind == "essential" else {}))
        n = found["n_inliers"].tolist()
        assert n[1:3] + n[4:5] == [0, 0, 0]
        assert min(n[0], n[3], n[5]) > 190
        assert found["model"][0].tobytes() == found["model"][5].tobytes()


def test_photographs(data_dir: Path) -> None:
    """Two photographs of one scene agree in most matches; photographs of a scene and of a church do not agree."""
    near = [sift(path, 2048) for path in photographs(data_dir, "lightglue_dsc")]
    church = [sift(path, 1024) for path in photographs(data_dir, "sacre_coeur")]
    pictures = [*near, *church]
    pairs = [(0, 1), (0, 2), (1, 7), *((a + 2, b + 2) for a, b in all_pairs(10))]
    given = chunk(pictures, pairs)
    matches = Match(MatchOptions()).run(given)
    given = chunk(pictures, pairs, n_matches=matches["n_matches"], match=matches["match"])
    found = verified(given)
    n = found["n_inliers"]
    assert n[0] > 0.7 * matches["n_matches"][0] > 100
    assert n[1:3].tolist() == [0, 0]
    assert (n[3:] >= 15).sum() >= 15
    inliers = of_pairs({**matches, **found}, "n_matches", "inlier")
    assert [part.sum() for part in inliers] == n.tolist()


def test_options() -> None:
    assert find_stage("verify") is Verify
    assert set(VerifyOptions().keyed()) == {"model", "threshold", "confidence", "most", "least", "method"}
    assert set(VerifyOptions(model="essential").keyed()) - set(VerifyOptions().keyed()) == {
        *("focal", "focal_factor", "centre")
    }
    message = r"option focal: 900\.0 has no effect with model: fundamental; leave it out"
    with pytest.raises(ValueError, match=message):
        VerifyOptions(focal=900)
    nan = float("nan")
    for wrong in ({"threshold": 0}, {"threshold": nan}, {"confidence": 1}, {"most": 0}, {"least": 0}, {"method": "x"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            VerifyOptions(**wrong)
    with pytest.raises(ValueError, match="centre"):
        VerifyOptions(model="essential", centre=[nan, 1])
