"""`per: track`: which faces the network sees, what the others get, and what stays as it was per face."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.engine.stage import Chunk
from pipeline.engine.workflow import build_workflow
from pipeline.errors import StoreError, WorkflowError
from pipeline.faces.models import zoo
from pipeline.faces.stages import per_track as module
from pipeline.faces.stages.analyze import Analyze, AnalyzeOptions, _agree
from pipeline.faces.stages.antispoof import Antispoof, AntispoofOptions
from pipeline.faces.stages.embed import Embed, EmbedOptions
from pipeline.faces.stages.per_track import mean_value, mean_vector, per_track, spread, vectors_agree
from pipeline.machine.device import Device
from pipeline.store.run import RunStore
from tests.models.stand_in_attributes import write_stand_ins

N = 12
BOX = np.tile(np.array([20, 40, 30, 30], np.float32), (N, 1))


def chunk(n_faces: list[int] | None = None, frames: np.ndarray | None = None) -> Chunk:
    """One face that stays where it is, in every frame, the later the sharper it is said to be."""
    counts = np.ones(N, np.int32) if n_faces is None else np.array(n_faces, np.int32)
    n = int(counts.sum())
    if frames is None:
        picture = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
        frames = np.repeat(picture[None], len(counts), axis=0)
    arrays = {
        "frames_rgb": frames,
        "n_faces": counts,
        "box": BOX[:n],
        "landmarks": np.full((n, 5, 2), np.nan, np.float32),
        "confidence": np.linspace(0.5, 0.99, n).astype(np.float32),
    }
    times = np.arange(len(counts)) / 5
    return Chunk("clip", 0, np.arange(len(counts)) * 5, times, np.ones(len(counts), bool), arrays)


class Network:
    """Stands for a network: gives each face the vector that is set down for it, and keeps what it was asked."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = np.asarray(vectors, np.float32)
        self.asked: list[list[int]] = []

    def __call__(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        self.asked.append(rows.tolist())
        return {"embedding": self.vectors[rows]}


def run(network: Network, best: int = 3, **kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
    values, own = per_track(
        chunk(**kwargs), best, network, lambda said: vectors_agree(said["embedding"], 0.1), mean_vector
    )
    return values["embedding"], own


def person(angle: float) -> list[float]:
    return [np.cos(angle), np.sin(angle)]


def test_the_network_sees_the_best_and_the_others_get_their_mean() -> None:
    network = Network(np.array([person(0.01 * k) for k in range(N)]))
    embedding, own = run(network)
    assert network.asked == [[3, 7, 11]], "the surest third, third by third"
    assert np.flatnonzero(own).tolist() == [3, 7, 11]
    np.testing.assert_array_equal(embedding[own], network.vectors[own])
    others = embedding[~own]
    assert len(np.unique(others, axis=0)) == 1
    angle = np.arctan2(others[0, 1], others[0, 0])
    assert 0.07 < angle < 0.11, "between the three, nearer to the surer ones"


def test_where_the_chosen_disagree_each_half_is_asked_again() -> None:
    """One tracklet in which, unseen by position, the person changes in the middle."""
    network = Network(np.array([person(0)] * 6 + [person(1)] * 6))
    embedding, own = run(network)
    assert network.asked[0] == [3, 7, 11]
    np.testing.assert_allclose(embedding, network.vectors, atol=1e-6)
    assert own.sum() < N


def test_faces_that_never_agree_are_all_the_networks_own() -> None:
    network = Network(np.array([person(0.7 * k) for k in range(N)]))
    embedding, own = run(network)
    assert own.all()
    np.testing.assert_array_equal(embedding, network.vectors)
    asked = [row for rows in network.asked for row in rows]
    assert sorted(asked) == list(range(N)), "and none twice"


def test_what_is_not_a_number_stands_for_nobody() -> None:
    network = Network(np.array([person(0)] * N))
    network.vectors[7] = np.nan
    embedding, own = run(network)
    assert own[7]
    assert np.isnan(embedding[7]).all()
    assert np.isfinite(np.delete(embedding, 7, axis=0)).all()


@pytest.mark.parametrize("n_faces", [[0, 0, 0], []], ids=["no face", "no frame"])
def test_nothing_to_see(n_faces: list[int]) -> None:
    frames = np.zeros((len(n_faces), 120, 160, 3), np.uint8)
    embedding, own = run(Network(np.zeros((N, 2))), n_faces=n_faces, frames=frames)
    assert embedding.shape == (0, 2)
    assert own.shape == (0,)


def test_best_bounds_what_is_seen() -> None:
    for best in (1, 2, 5, 20):
        _, own = run(Network(np.array([person(0)] * N)), best=best)
        assert own.sum() == min(best, N)


def test_means() -> None:
    vectors = np.array([[3, 0], [0, 3]], np.float32)
    even = np.array([0.5, 0.5])
    np.testing.assert_allclose(mean_vector("", vectors, even), [3 / 2**0.5] * 2, rtol=1e-6)
    np.testing.assert_allclose(mean_vector("", vectors, np.array([1.0, 0.0])), [3, 0])
    np.testing.assert_allclose(mean_value("", np.array([20.0, 30.0]), np.array([0.25, 0.75])), 27.5)
    np.testing.assert_allclose(mean_value("", np.array([[1, 0], [0.5, 0.5]]), even), [0.75, 0.25])


def test_spread() -> None:
    assert spread(np.array([20.0, 41.0, 30.0])) == 21
    assert spread(np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0.5]])) == 1


# --- options, keys ----------------------------------------------------------------------------------------------------


def workflow(**embed: Any) -> Any:
    document = {"source": {"every": 1}, "stages": {"detect": {}, "embed": {"model": "Dlib", **embed}}}
    return build_workflow("faces", document, Path("."))


@pytest.mark.parametrize(
    "options", [EmbedOptions(), AnalyzeOptions(), AntispoofOptions()], ids=lambda o: type(o).__name__
)
def test_per_face_enters_no_key(options: module.TrackOptions) -> None:
    """Stores from before there was a choice go on."""
    assert not {"per", "best"} & options.keyed().keys()
    tracked = type(options)(per="track")
    assert tracked.keyed()["per"] == "track"
    assert tracked.keyed()["best"] == 3


def test_keys_tell_per_track_and_best_apart() -> None:
    keys = {workflow(**options).keys()["embed"] for options in ({}, {"per": "track"}, {"per": "track", "best": 5})}
    assert len(keys) == 3
    assert workflow().keys() == workflow(per="face", best=3).keys()


def test_a_best_that_nothing_heeds_is_refused() -> None:
    with pytest.raises(
        WorkflowError, match=r"stages\.embed: option best needs per: track; leave it out, or set"
    ):
        workflow(best=5)


def test_what_is_declared() -> None:
    assert [array.name for array in Embed(EmbedOptions()).outputs] == ["embedding"]
    tracked = Embed(EmbedOptions(per="track"))
    assert [(array.name, array.dtype) for array in tracked.outputs] == [("embedding", "float32"), ("embedded", "bool")]
    assert "confidence" in tracked.needs
    assert "confidence" not in Embed(EmbedOptions()).needs
    assert [array.name for array in Analyze(AnalyzeOptions(per="track")).outputs][-1] == "analyzed"
    part = Analyze(AnalyzeOptions(per="track", attributes=("race", "age")))
    assert [array.name for array in part.outputs] == ["age", "race", "analyzed_age_race"]
    assert [array.name for array in Antispoof(AntispoofOptions(per="track")).outputs] == ["real", "real_checked"]


# --- attributes -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """DEEPFACE_HOME with stand-ins for the attributes."""
    with pytest.MonkeyPatch.context() as patch:
        home = write_stand_ins(tmp_path_factory.mktemp("stand_ins"))
        patch.setenv("DEEPFACE_HOME", str(home))
        yield home


def test_attributes_per_track(home: Path) -> None:
    face, track = Analyze(AnalyzeOptions()), Analyze(AnalyzeOptions(per="track"))
    face.load(Device())
    track.load(Device())
    exact, found = face.run(chunk()), track.run(chunk())
    own = found.pop("analyzed")
    assert found.keys() == exact.keys()
    assert np.flatnonzero(own).tolist() == [3, 7, 11]
    for name, values in found.items():
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values[own], exact[name][own])
        np.testing.assert_allclose(values, exact[name], atol=1e-3, err_msg="the face is the same in every frame")
    for name in ("gender", "emotion", "race"):
        np.testing.assert_allclose(found[name].sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "values", "agree"),
    [
        ("age", [30.0, 44.0], True),
        ("age", [30.0, 46.0], False),
        ("gender", [[0.9, 0.1], [0.5, 0.5]], True),
        ("gender", [[0.9, 0.1], [0.3, 0.7]], False),
        ("emotion", [[1.0, 0.0], [0.0, 1.0]], True),
    ],
)
def test_attributes_that_cannot_be_one_persons(name: str, values: list[Any], agree: bool) -> None:
    assert _agree({name: np.array(values, np.float32)}) == agree


def test_liveness_per_track(data_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weights = tmp_path / ".deepface" / "weights"
    weights.mkdir(parents=True)
    for file in zoo.card("Fasnet").weights:
        shutil.copy(data_dir / "weights" / "deepface" / file.name, weights)
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    face, track = Antispoof(AntispoofOptions()), Antispoof(AntispoofOptions(per="track"))
    face.load(Device())
    track.load(Device())
    found = track.run(chunk())
    assert found["real_checked"].sum() == 3
    np.testing.assert_allclose(found["real"], face.run(chunk())["real"], atol=1e-5)


# --- on clips ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> dict[str, Path]:
    """The parade of three people, one after the other at one place: per face and per track."""
    folder = tmp_path_factory.mktemp("runs")
    clip = data_dir / "videos" / "derived" / "asl_parade_dev.mp4"
    document = "source: {every: 3}\nstages:\n  detect: {min_face: 40}\n  embed: {model: Dlib}\n"
    (folder / "faces.yaml").write_text(document)
    made = {}
    for per in ("face", "track"):
        made[per] = folder / f"{per}.zarr"
        options: dict[str, Any] = {"set": ["embed.per=track"]} if per == "track" else {}
        done = pipeline.run(folder / "faces.yaml", clip, made[per], executor="inline", **options)
        assert done.summary.exit_code == 0, done.summary.failures
    made["workflow"], made["clip"] = folder / "faces.yaml", clip
    return made


def test_a_parade_keeps_its_people_apart(stores: dict[str, Path]) -> None:
    """Nobody's embedding crosses a cut."""
    face, track = (pipeline.open(stores[per]).input("asl_parade_dev") for per in ("face", "track"))
    arrays = track.read(["embedding", "embedded", "face_frame", "frame"])
    own, exact = arrays["embedded"], face.array("embedding")
    assert 3 * own.sum() < len(own), "most faces are spared"
    np.testing.assert_allclose(arrays["embedding"][own], exact[own], atol=1e-6)
    unit = [e / np.linalg.norm(e, axis=1, keepdims=True) for e in (exact, arrays["embedding"])]
    assert (1 - (unit[0] * unit[1]).sum(axis=1)).max() < 0.06, "Dlib's threshold is 0.08"
    shot = np.searchsorted([58, 109, 177], arrays["frame"][arrays["face_frame"]], side="right")
    for one in range(3):
        left, right = (np.unique(arrays["embedding"][(shot == k) & ~own], axis=0) for k in (one, one + 1))
        assert not (left[:, None] == right[None]).all(axis=2).any()


def test_a_store_per_face_is_not_gone_on_with_per_track(stores: dict[str, Path], tmp_path: Path) -> None:
    out = Path(shutil.copytree(stores["face"], tmp_path / "out.zarr"))
    with pytest.raises(StoreError, match=r"other settings for embed \(embed\.per: 'face' -> 'track'\); "
                       r"go on with the stored ones by --set embed\.per=face, choose another --out, or start over"):
        pipeline.run(stores["workflow"], stores["clip"], out, executor="inline", set=["embed.per=track"])


def test_a_store_from_before_there_was_a_choice_goes_on(stores: dict[str, Path], tmp_path: Path) -> None:
    out = Path(shutil.copytree(stores["face"], tmp_path / "out.zarr"))
    with RunStore.open(out) as store:
        stored = store.attributes["workflow"]
        del stored["stages"]["embed"]["per"], stored["stages"]["embed"]["best"]
        store.update(workflow=stored)
    with pytest.raises(StoreError, match=r"for detect, embed \(detect\.min_face: 40 -> 50\); go on with the stored"):
        pipeline.run(stores["workflow"], stores["clip"], out, executor="inline", set=["detect.min_face=50"])
    again = pipeline.run(stores["workflow"], stores["clip"], out, executor="inline")
    assert (again.summary.exit_code, again.summary.chunks) == (0, 0)


def test_chunks_alone_decide_not_who_runs_them(stores: dict[str, Path]) -> None:
    """The stage, run again on another number of threads, gives the same bits."""
    from pipeline.media.video.source import VideoSource

    loaded = build_workflow("faces", {"source": {"every": 3}, "stages": {"detect": {}}}, Path("."))
    source = VideoSource(stores["clip"], loaded.source_options)
    item = pipeline.open(stores["track"]).input("asl_parade_dev")
    stop = int(item.attributes["chunk_frames"])
    decoded = source.job(0, stop).decode(1)
    arrays = item.read_frames(["n_faces", "box", "landmarks", "confidence", "embedding", "embedded"], 0, stop)
    stage = Embed(EmbedOptions(per="track"))
    stage.load(Device(threads=2))
    part = {**arrays, "frames_rgb": decoded.frames_rgb}
    again = stage.run(Chunk("clip", 0, source.frame[:stop], source.time_seconds[:stop], decoded.decoded, part))
    for name, array in again.items():
        np.testing.assert_array_equal(array, arrays[name])
