"""Films and pictures with boxes and names of faces, or with faces made unrecognisable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from pipeline.engine.events import Listener, Silent
from pipeline.faces.people.evidence import LEVELS, Level
from pipeline.faces.people.forget import FORGOTTEN
from pipeline.faces.people.labels import UNKNOWN, Labels, choose, labels
from pipeline.faces.views.blurring import REACH as BLUR_REACH
from pipeline.faces.views.blurring import blur, coarse, covers
from pipeline.media.film.drawing import UNKNOWN_COLOUR, Mark, colour_of, draw
from pipeline.media.film.lettering import drawable
from pipeline.media.film.targets import chosen_inputs
from pipeline.media.film.whereabouts import DRAWN, Boxes, Found, Ints, Reach, between, read_found
from pipeline.media.spans import is_timed
from pipeline.store.read import RunInput
from pipeline.text import plural
from pipeline.views.annotate import Annotated, Bools, Painter, Part, Pixels, annotate_inputs
from pipeline.views.progress import Work

ALL, UNNAMED = "all", "unknown"
_UNSEEN_CELLS = 12
"""Mean colours across the shorter side of a frame that was not looked at; nothing finer is left of it."""


@dataclass(frozen=True)
class Wanted:
    """The film to make of each input."""

    blur: tuple[str, ...] = ()
    """`all`, `unknown` (all people without a name), ids or names."""
    boxes: bool | None = None
    """Draw boxes: None, over faces that are not blurred."""
    start: float | None = None
    """Seconds as in the video; if it is given, the film starts at 0."""
    stop: float | None = None
    """Seconds as in the video."""
    levels: bool = False
    """Write behind a name how sure it is."""


def annotate(
    outs: Sequence[Path | str],
    inputs: Sequence[str] = (),
    target: Path | str | None = None,
    wanted: Wanted | None = None,
    *,
    force: bool = False,
    progress: Listener | None = None,
) -> list[Annotated]:
    """Write a film for each input (or those named) of some stores, or a copy of each picture: `annotate_inputs`.

    Raises UsageError for an unknown input or person.
    """
    wanted = wanted or Wanted()
    items, work = chosen_inputs(outs, inputs), Work(progress or Silent())
    people = [choose(items, person, overruled=True) for person in wanted.blur if person not in (ALL, UNNAMED)]

    def painter(number: int, item: RunInput) -> Picture:
        asked = np.zeros(len(labels(item).code), bool)  # faces of the people who are asked for by id or name
        for chosen in people:
            asked |= chosen[number].rows
        return Picture(item, asked, wanted)

    word = "blurred" if wanted.blur else "annotated"
    made = annotate_inputs(
        items, target, painter, work, part=Part(wanted.start, wanted.stop), word=word, force=force
    )
    limits = [_limit_of(item, wanted) for item in items if wanted.blur]
    for result, limit in zip(made, limits, strict=False):
        result.notes.append(limit)
    for limit in set(limits):
        work.note(limit)
    return made


class Picture(Painter):
    """Blurs faces, and draws boxes and names."""

    axis: ClassVar[str] = "face"
    reaches: ClassVar[tuple[Reach, ...]] = (BLUR_REACH, DRAWN)

    def __init__(self, item: RunInput, chosen: Bools, wanted: Wanted) -> None:
        """`chosen`: faces of the people who are asked for by id or name."""
        self._who = labels(item)
        super().__init__(item, read_found(item, self.axis, self._who.code))
        self._wanted = wanted
        self.hidden = _hidden(self.found, self._who, chosen, wanted.blur)
        self._shown = ~self.hidden if wanted.boxes is None else np.full(len(self.found), wanted.boxes)
        # A name for which there is no font becomes a number.
        self._names = {}
        for code, name in self._who.names.items():
            numbered = f"person {code}" if code > UNKNOWN else f"name {UNKNOWN - code}"
            shown = self._names[code] = drawable(name, numbered)
            if shown == numbered != name:
                hint = "install one, such as Noto Sans"
                self.notes.append(f"no font here has the letters of {name!r}: shown as {shown!r}; {hint}")
        self._more = _descriptions(item, self._who, wanted.levels)

    def change(self, rank: int, frame_rgb: Pixels, *on: Ints) -> None:
        cover, boxes = on
        blurred = np.empty((0, 4), np.float32)
        if self._wanted.blur and self.unseen[rank]:
            side = min(frame_rgb.shape[:2])
            frame_rgb[:] = coarse(frame_rgb, max(2.0, side / _UNSEEN_CELLS))
        elif self._wanted.blur:
            hidden, legs = self.hidden, self.legs[0]
            chosen = cover[hidden[legs.begin[cover]] | hidden[legs.end[cover]]]
            blurred = covers(self.found, legs, chosen, rank, self.times)
            blur(frame_rgb, blurred)
        draw(frame_rgb, self._marks(boxes, rank, blurred if self._wanted.boxes is None else blurred[:0]))

    def _marks(self, which: Ints, rank: int, blurred: Boxes) -> list[Mark]:
        """Return the marks to draw; none for a face that is hidden, even if only by the blur of another one."""
        legs, marks = self.legs[1], []
        rows = legs.nearest(self.found, which, rank)
        for row, box in zip(rows.tolist(), between(self.found, legs, which, rank), strict=True):
            centre = box[:2] + box[2:] / 2
            inside = (centre >= blurred[:, :2]) & (centre <= blurred[:, :2] + blurred[:, 2:])
            if not self._shown[row] or inside.all(1).any():
                continue
            code = int(self._who.code[row])
            colour = UNKNOWN_COLOUR if code == UNKNOWN else colour_of(code)
            if self._who.source == "none":
                colour = colour_of(int(self.found.track[row]))
            marks.append(Mark(tuple(box.tolist()), colour, self._names.get(code, ""), self._more(row)))
        return marks

    def counts(self, inside: Bools) -> dict[str, int]:
        blurred = self.hidden & inside
        return {**super().counts(inside), "blurred_faces": int(blurred.sum())}

    def remarks(self, result: Annotated) -> list[str]:
        """Return what is not blurred, or is as a whole."""
        item, found = self.item, []
        if not self._wanted.blur:
            return []
        if self.is_cropped:
            found.append("faces outside the middle (crop) were never looked for, and are not blurred")
        if result.unseen_frames:
            unlooked = plural(result.unseen_frames, "frame" if is_timed(item) else "picture")
            found.append(f"{unlooked} that the run did not look at: blurred as a whole")
        if item.attributes.get("roi"):
            found.append("faces outside the roi were never looked for, and are not blurred")
        counts = [entry.get("faces", 0) for entry in item.attributes.get(FORGOTTEN, [])]
        removed = sum(count for count in counts if isinstance(count, int))
        if removed:
            gone = plural(removed, "forgotten face")
            found.append(f"{gone} not blurred: the store has no boxes of them any more; blur from a new store")
        return found


def _hidden(faces: Found, who: Labels, chosen: Bools, words: Sequence[str]) -> Bools:
    """Return bool (n,): faces to blur. `chosen`: those of people asked for. When in doubt, blur.

    A face that was not recognised counts as the named person of its track, if most of the track is that one person.
    On another track it is blurred if a face of the track is, or if all people without a name are asked for.
    """
    if ALL in words:
        return np.ones(len(faces), bool)
    by_name = [code for code in who.named if who.names[code].casefold() != UNNAMED]  # a gallery may call strangers so
    named = np.isin(who.code, np.array(by_name, np.int32))
    result = chosen | (~named if UNNAMED in words else np.zeros(len(faces), bool))
    order = np.argsort(faces.track, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(faces.track[order])) + 1) if len(faces) else []:
        owners = np.unique(who.code[rows][named[rows]])
        if len(owners) == 1 and 2 * named[rows].sum() > len(rows):
            result[rows[who.code[rows] == UNKNOWN]] = result[rows[named[rows]]].any()
        elif result[rows].any():
            result[rows[~named[rows]]] = True
    return result


def _descriptions(item: RunInput, who: Labels, levels: bool) -> Callable[[int], str]:
    """Return a function that describes a face: its attributes, and on request how sure its name is.

    The detector's confidence is shown only in stores without people and names: behind a name it would be read as the
    name's.
    """
    arrays = item.arrays
    chosen: list[str] = [name for name in ("age", "gender", "emotion", "race") if name in arrays]
    if who.source == "none" and not chosen:
        chosen = ["confidence"] * ("confidence" in arrays)
    if levels and "identity_level" in arrays:
        chosen = ["identity_level", *chosen]
    values = item.read(chosen) if chosen else {}
    if any(len(rows) != len(who.code) for rows in values.values()):
        return lambda row: ""
    classes = {name: arrays[name].attributes.get("class_names") for name in chosen}

    def describe(row: int) -> str:
        words = []
        for name in chosen:
            value, of = values[name][row], classes[name]
            if name == "identity_level":
                is_shown = who.is_of_gallery(int(who.code[row])) and Level.LIKELY <= value <= Level.SURE
                words += [LEVELS[value]] if is_shown else []
                continue
            if not np.isnan(value).any():
                digits = 2 if name == "confidence" else 0
                words.append(of[int(np.argmax(value))].lower() if of else f"{float(value):.{digits}f}")
        return ", ".join(words)

    return describe


def _limit_of(item: RunInput, wanted: Wanted) -> str:
    """Return a line on the limits of blurring."""
    one = not {ALL, UNNAMED} & set(wanted.blur)
    limit = f"only faces that were found{' and recognised' if one else ''} are blurred: look before you publish"
    if not is_timed(item) or item.attributes.get("every") == 1:
        return limit
    return f"{limit}; a store made with --every 1 misses the fewest"
