"""Blurred films: on no frame is anything left of a face that was found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.api import run as execute
from pipeline.faces.views.annotate import Wanted, annotate
from pipeline.faces.views.blurring import blur, coarse
from pipeline.media.film.whereabouts import Found, Legs, Reach, along, legs, unseen
from pipeline.store.read import RunInput
from tests.views.films import SIZE, read_film, still, store_of, texture, write_film

LEFT, RIGHT = (40, 100, 50, 60), (230, 100, 50, 60)


def detail(frames: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """float64 (n,): mean step from pixel to pixel inside a box, of each frame."""
    x, y, w, h = (round(v) for v in box)
    part = frames[:, y : y + h, x : x + w].astype(float).mean(-1)
    return np.asarray(np.abs(np.diff(part, axis=1)).mean((1, 2)) + np.abs(np.diff(part, axis=2)).mean((1, 2)))


SHARP = float(detail(texture()[None], LEFT)[0])


def blurred(tmp_path: Path, boxes: np.ndarray, *words: str, n_frames: int = 50, **more: object) -> np.ndarray:
    film = write_film(tmp_path / "a.mp4", n_frames)
    done = more.pop("done_chunks", None)
    drawn = more.pop("drawn", None)
    store = store_of(tmp_path / "a.zarr", [film], [boxes], done_chunks=done, **more)  # type: ignore[arg-type]
    (made,) = annotate([store], wanted=Wanted(blur=words, boxes=drawn))  # type: ignore[arg-type]
    assert Path(made.file).name == "a_blurred.mp4"
    return read_film(Path(made.file))[1]


def test_a_face_is_blurred_on_every_frame_and_nothing_else(tmp_path: Path) -> None:
    frames = blurred(tmp_path, still(10, LEFT), "all")
    assert detail(frames, LEFT).max() < SHARP / 4
    assert detail(frames, RIGHT).min() > SHARP * 0.8
    head = (LEFT[0] - 8, LEFT[1] - 15, LEFT[2] + 16, LEFT[3] + 25)  # hair and chin
    assert detail(frames, head).max() < SHARP / 3


def test_a_face_seen_once_is_covered_until_the_samples_around_it_and_a_little_longer(tmp_path: Path) -> None:
    boxes = np.full((10, 1, 4), np.nan, np.float32)
    boxes[4] = LEFT  # frame 20
    covered = detail(blurred(tmp_path, boxes, "all"), LEFT) < SHARP / 4
    assert covered[15:26].all()
    assert not covered[:12].any()
    assert not covered[29:].any()


def test_a_moving_face_is_covered_all_along_its_way(tmp_path: Path) -> None:
    boxes = np.full((10, 1, 4), np.nan, np.float32)
    for k in range(10):
        boxes[k] = (20 + 22 * k, 100, 50, 60)
    frames = blurred(tmp_path, boxes, "all", track=[np.zeros((10, 1), int)])
    for number in range(46):
        for ahead in (0.0, 0.25, 0.75):  # at even speed, or hurrying, or lingering
            sample = np.floor(number / 5) + (ahead if number % 5 else 0)
            box = (20 + 22 * min(sample, 9), 100, 50, 60)
            assert detail(frames[number : number + 1], box)[0] < SHARP / 3, (number, ahead)


def test_on_both_sides_of_a_cut_both_places_are_covered(tmp_path: Path) -> None:
    boxes = np.full((10, 2, 4), np.nan, np.float32)
    boxes[:5, 0], boxes[5:, 1] = LEFT, RIGHT
    frames = blurred(tmp_path, boxes, "all", track=[np.zeros((10, 2), int)])  # one track, wrongly
    left, right = detail(frames, LEFT) < SHARP / 4, detail(frames, RIGHT) < SHARP / 4
    assert left[:25].all()
    assert right[21:].all()
    assert (left & right)[21:25].all()


@pytest.mark.parametrize(
    ("words", "left", "right"),
    [(("Ann",), True, False), (("2",), False, True), (("unknown",), False, False), (("ann", "Bo"), True, True)],
)
def test_one_person_is_blurred_and_others_are_not(
    tmp_path: Path, words: tuple[str, ...], left: bool, right: bool
) -> None:
    frames = blurred(tmp_path, still(10, LEFT, RIGHT), *words, person=[np.tile([1, 2], (10, 1))], drawn=False)
    assert (detail(frames, LEFT) < SHARP / 4).tolist() == [left] * 50
    assert (detail(frames, RIGHT) < SHARP / 4).tolist() == [right] * 50


@pytest.mark.parametrize(
    ("people", "word", "hidden"),
    [
        ([1, 1, -1, 1, 1, 1, 1, 1, 1, 1], "unknown", []),  # not recognised once, on a track that is hers
        ([1, 1, -1, 1, 1, 1, 1, 1, 1, 1], "Ann", range(50)),
        ([1, -1, -1, -1, -1, -1, -1, -1, -1, -1], "unknown", range(50)),  # one lucky match is not enough
        ([2, 2, 2, 2, 2, 1, 1, 1, 1, 1], "Ann", range(20, 50)),  # a track that changes hands
        ([1, 1, 3, 1, 1, 1, 1, 1, 1, 1], "3", range(5, 15)),  # another one on a track that is hers, asked for
        ([1, 1, 3, 1, 1, 1, 1, 1, 1, 1], "unknown", range(5, 15)),
        ([3, 3, -1, 3, 3, 3, 3, 3, 3, 3], "3", range(50)),
        ([-1] * 10, "unknown", range(50)),
        ([7] * 10, "unknown", range(50)),  # people whom nobody has named
    ],
)
def test_who_is_blurred_along_a_track(tmp_path: Path, people: list[int], word: str, hidden: range) -> None:
    other = np.array([1, 2] + [1] * 8)[:, None]
    frames = blurred(
        tmp_path, still(10, LEFT, RIGHT), word, track=[np.tile([0, 1], (10, 1))],
        person=[np.concatenate([np.array(people)[:, None], other], axis=1)], drawn=False,
    )  # fmt: skip
    found = np.flatnonzero(detail(frames, LEFT) < SHARP / 4)
    assert found.tolist() == list(hidden)


def test_nothing_is_written_over_a_blurred_face_unless_asked(tmp_path: Path) -> None:
    faces = {"person": [np.tile([1, 2], (2, 1))]}
    plain = blurred(tmp_path, still(2, LEFT, RIGHT), "Ann", n_frames=10, **faces).astype(int)
    asked = annotate([tmp_path / "a.zarr"], target=tmp_path / "b.mp4", wanted=Wanted(blur=("Ann",), boxes=True))
    boxes = read_film(Path(asked[0].file))[1].astype(int)
    apart = np.abs(plain - boxes).max(-1)[3]
    assert apart[:, :150].max() > 100
    assert apart[:, 180:].max() < 60
    assert np.abs(plain[3] - texture()).max(-1)[90:150, 230].mean() > 60  # Bo has a box


def test_nothing_is_written_where_the_blur_of_another_face_hides_a_face(tmp_path: Path) -> None:
    near = (LEFT[0] + 20, LEFT[1] + 10, 30, 40)
    frames = blurred(tmp_path, still(2, LEFT, near), "Ann", n_frames=10, person=[np.tile([1, 2], (2, 1))])
    assert detail(frames, LEFT).max() < SHARP / 4


def test_what_was_never_looked_at_is_blurred_as_a_whole(tmp_path: Path) -> None:
    frames = blurred(tmp_path, still(10, LEFT), "all", done_chunks=1)  # samples 0 to 15
    everywhere = (0, 40, SIZE[0], 200)
    assert detail(frames, everywhere)[15:].max() < SHARP / 4
    assert detail(frames, RIGHT)[:15].min() > SHARP * 0.8


def test_a_face_at_the_border_is_blurred_up_to_it(tmp_path: Path) -> None:
    frames = blurred(tmp_path, still(2, (-10, -10, 50, 60), (300, 200, 50, 60)), "all", n_frames=10)
    assert detail(frames, (0, 0, 40, 50)).max() < SHARP / 3
    assert detail(frames, (300, 200, 20, 40)).max() < SHARP / 3


@pytest.mark.parametrize("size", [20, 60, 400])
def test_a_head_is_told_by_a_few_means_whatever_its_size(size: int) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (size, size, 3), np.uint8)
    means = coarse(noise, size / 5)
    assert means.shape == noise.shape
    spectrum = np.abs(np.fft.fft2(means.mean(-1) - means.mean()))
    assert spectrum[: size // 2, : size // 2][8:, 8:].max() < 0.1 * spectrum.max()
    frame = np.zeros((size * 2, size * 2, 3), np.uint8)
    frame[::2] = 255
    blur(frame, np.array([[size / 2, size / 2, size, size]], np.float32))
    middle = frame[size - size // 4 : size + size // 4, size - size // 4 : size + size // 4]
    assert np.ptp(middle) < 60
    assert np.ptp(frame[: size // 2]) == 255


def test_no_frame_between_the_first_and_the_last_sample_of_a_track_is_left_out() -> None:
    rng = np.random.default_rng(3)
    grid = np.arange(0, 500, 5)
    shown = np.sort(rng.choice(grid, 60, replace=False))
    faces = Found(shown, np.tile(np.array(LEFT, np.float32), (60, 1)), np.zeros(60, np.int32), grid)
    found = legs(faces, Reach(1.0, 2, 2.0), grid, np.arange(500) / 25)
    assert isinstance(found, Legs)
    on = np.array([len(which) for which in along(found, 0, 500)])
    assert on[shown[0] : shown[-1] + 1].min() >= 1
    assert (np.array([len(which) for which in along(found, 123, 500)]) == on[123:]).all()


def test_frames_between_samples_that_were_not_looked_at_are_unseen() -> None:
    faces = Found(np.empty(0, np.int64), np.empty((0, 4), np.float32), np.empty(0, np.int32), np.array([0, 5, 15]))
    assert np.flatnonzero(unseen(faces, np.array([0, 5, 10, 15]), 20)).tolist() == list(range(5, 15))


@pytest.mark.parametrize("every", [5, 25])
def test_blurred_people_are_recognised_no_more(tmp_path: Path, data_dir: Path, workflows: Path, every: int) -> None:
    """Real faces: what the models make of frames of the film, against what they make of the source."""
    clip = data_dir / "videos" / "derived" / "intel_head-pose-face-detection-female-and-male.mp4"

    def look(path: Path, step: int) -> RunInput:
        out = tmp_path / f"{path.stem}.zarr"
        run = execute(workflows / "faces.yaml", [path], out, executor="inline", set={"source.every": step})
        return next(iter(run.inputs.values()))

    source = look(clip, every)
    (made,) = annotate([source.store_path], wanted=Wanted(blur=("all",)))
    after = look(Path(made.file), 3)
    threshold = source.arrays["embedding"].attributes["thresholds"]["euclidean"]
    assert made.counts["blurred_faces"] == len(source.array("embedding")) >= 2 * (56 // every)
    apart = np.linalg.norm(after.array("embedding")[:, None] - source.array("embedding")[None], axis=-1)
    assert apart.min(initial=9.0) > threshold
