"""Boxes and labels: legible at any size, in any script there is a font for. Codecs where the usual one is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.faces.views.annotate import annotate
from pipeline.media.film import lettering, movie
from pipeline.media.film.drawing import Mark, colour_of, draw
from pipeline.media.video.index import build_index
from tests.views.films import still, store_of, write_film

SIZES = [(176, 144), (640, 360), (1080, 1920), (3840, 2160)]


def drawn(size: tuple[int, int], *marks: Mark, ground: int = 128) -> np.ndarray:
    """bool (height, width): what was drawn on a plain frame."""
    frame = np.full((size[1], size[0], 3), ground, np.uint8)
    draw(frame, list(marks))
    return np.asarray((frame != ground).any(-1))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("place", [(0.3, 0.4), (-0.1, -0.1), (0.9, 0.9), (0.4, 0.0), (0.95, 0.0)])
def test_a_label_lies_whole_in_the_frame_and_grows_with_it(size: tuple[int, int], place: tuple[float, float]) -> None:
    width, height = size
    box = (place[0] * width, place[1] * height, 0.2 * width, 0.3 * height)
    bare, named = (drawn(size, Mark(box, (255, 200, 0), text)) for text in ("", "Ann"))
    label = named & ~bare
    letters = max(11, min(size) / 40)
    rows, columns = np.flatnonzero(label.any(1)), np.flatnonzero(label.any(0))
    assert letters < np.ptp(rows) + 1 < 3 * letters
    assert letters < np.ptp(columns) + 1 < 5 * letters
    assert label.sum() > 0.5 * (np.ptp(rows) + 1) * (np.ptp(columns) + 1)


@pytest.mark.parametrize("ground", [0, 128, 255])
@pytest.mark.parametrize("code", range(12))
def test_lines_stand_out_from_any_ground(code: int, ground: int) -> None:
    frame = np.full((144, 176, 3), ground, np.uint8)
    draw(frame, [Mark((40, 40, 60, 60), colour_of(code), "")])
    luma = frame[70, 36:45] @ np.array([0.299, 0.587, 0.114])
    assert np.abs(luma - ground).max() > 75
    assert np.ptp(luma) > 75


def test_people_have_colours_of_their_own() -> None:
    colours = np.array([colour_of(code) for code in range(1, 9)])
    apart = np.abs(colours[:, None] - colours[None]).sum(-1) + 999 * np.eye(8)
    assert apart.min() > 60
    assert colour_of(3) == colour_of(3)


def test_labels_of_neighbours_do_not_cover_each_other() -> None:
    marks = [Mark((100 + 30 * k, 100, 60, 60), colour_of(k), f"person {k}") for k in range(3)]
    alone = [drawn((640, 360), mark).sum() - drawn((640, 360), Mark(mark.box, mark.colour, "")).sum() for mark in marks]
    bare = drawn((640, 360), *(Mark(mark.box, mark.colour, "") for mark in marks))
    together = (drawn((640, 360), *marks) & ~bare).sum()
    assert together > 0.9 * sum(alone) - 400  # what lies on lines of other boxes is not counted


def test_a_name_that_is_too_long_is_cut_short() -> None:
    frame = drawn((176, 144), Mark((60, 60, 40, 40), (255, 0, 0), "Wolfeschlegelsteinhausenbergerdorff", "0.99"))
    assert frame[:, [0, -1]].mean() < 0.2


def test_other_scripts_are_drawn_where_there_is_a_font_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="brings a font for Cyrillic")
    assert lettering.drawable("Мишель Обама", "person 2") == "Мишель Обама"
    cyrillic, latin = lettering.mask("Мишель", 20), lettering.mask("Mishel", 20)
    assert cyrillic.shape[0] == latin.shape[0]
    assert cyrillic.shape[1] > latin.shape[1] > 40
    best = lettering._fonts()[0]
    monkeypatch.setattr(lettering, "_fonts", lambda: (best, "default"))
    mixed, alone = lettering.mask("Zoë \u0b87", 20), lettering.mask("Zoë", 20)  # no such letter in either font
    assert (mixed[:, : alone.shape[1] - 1] == alone[:, :-1]).all()
    monkeypatch.setattr(lettering, "_fonts", lambda: ("default",))
    lettering._file_for.cache_clear()
    try:
        assert lettering.drawable("Zoë Ångström", "person 2") == "Zoe Angstrom"
        assert lettering.drawable("李小龙", "person 3") == "person 3"
    finally:
        lettering._file_for.cache_clear()


@pytest.mark.parametrize(("there", "codec"), [({"mpeg4"}, "mpeg4"), ({"libvpx-vp9"}, "vp9"), (set(), None)])
def test_another_codec_takes_the_place_of_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: set[str], codec: str | None
) -> None:
    film = write_film(tmp_path / "a.mp4", 12, (64, 48), first_seconds=0.5)
    store = store_of(tmp_path / "a.zarr", [film], [still(3, (10, 10, 20, 20))])
    monkeypatch.setattr(movie, "_can_encode", there.__contains__)
    if codec is None:
        with pytest.raises(UsageError, match="encodes none of libx264"):
            annotate([store])
        return
    (made,) = annotate([store], target=tmp_path / "out.mkv")
    assert any("lacks libx264" in note for note in made.notes)
    result = build_index(Path(made.file))
    assert result.codec == codec
    assert result.time_seconds == pytest.approx(build_index(film).time_seconds, abs=0.0006)
