"""Files that a user asks for never lie in a store: `run --fresh` would delete them, and `verify` does not know them."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from pipeline.cli import main

COMMANDS = (
    "report {out} --out {out}/x.html",
    "annotate {out} --out {out}/films",
    "annotate {out} --input clip --out {link}/clip/film.mp4",
    "clips {out} --person 1 --out {out}/clips",
    "people {out} --sheet {out}/new/sheet.png",
    "export {out} --to {out}/x.csv",
    "find {out} --gallery {people} --no-write --table {out}/table.csv",
    "find {out} --gallery {people} --no-write --save-gallery {out}/gallery.npz",
    "find {out} --face {face} --shots {out}/shots",
    "index {out} --out {out}/index",
    "record {clip} --to {out}/recorded",
    "init faces --to {out}/copy.yaml",
    "demo {out}/demo.mp4",
    "run faces {clip} --out {out}/sub.zarr --executor inline",
    "run faces {clip} --out {out}/new/sub.zarr --executor inline",
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inside")
    clip, out, link, face = (folder / name for name in ("clip.mp4", "store.zarr", "link", "people/Eileen.png"))
    assert main(["demo", str(clip), "--seconds", "1"]) == 0
    assert main(["run", "people", str(clip), "--out", str(out), "--executor", "inline"]) == 0
    assert main(["people", str(out)]) == 0
    link.symlink_to(out)
    face.parent.mkdir()
    film = cv2.VideoCapture(str(clip))
    film.set(cv2.CAP_PROP_POS_FRAMES, 12)
    cv2.imwrite(str(face), film.read()[1])
    return {"clip": clip, "out": out, "link": link, "people": face.parent, "face": face}


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words.partition(" ")[0])
def test_nothing_is_written_into_a_store(
    words: str, stored: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    there = set(stored["out"].rglob("*"))
    capsys.readouterr()
    assert main(words.format(**stored).split()) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith(f" is inside the store {stored['out']}; choose another place")
    assert str(words.split()[-1 if "inline" not in words else -3].format(**stored)) in last
    assert set(stored["out"].rglob("*")) == there
