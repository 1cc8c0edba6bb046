"""Films of what was found: every frame of the video with boxes and names, or with faces made unrecognisable.

Pictures are copied one by one: `annotated_pictures`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.engine.events import Listener, Silent
from pipeline.errors import UsageError
from pipeline.faces.people.evidence import LEVELS, Level
from pipeline.faces.people.labels import UNKNOWN, Labels, Source, choose, labels
from pipeline.faces.views.blurring import REACH as BLUR_REACH
from pipeline.faces.views.blurring import blur, coarse, covers
from pipeline.faces.views.whereabouts import Boxes, Faces, Legs, Reach, along, between, legs, read_faces, unseen
from pipeline.media.film.drawing import UNKNOWN_COLOUR, Mark, colour_of, draw
from pipeline.media.film.film import film_of, grid
from pipeline.media.film.lettering import drawable
from pipeline.media.film.movie import CONTAINERS, container_of
from pipeline.media.film.rewriting import write_film
from pipeline.media.film.targets import chosen_inputs, refuse_existing
from pipeline.media.spans import is_timed
from pipeline.text import clock, plural
from pipeline.views.progress import Work

if TYPE_CHECKING:
    from pipeline.store.read import RunInput

DRAW_REACH = Reach(hold_share=0.5, hold_frames=0, longest_gap_seconds=0.5)
"""A box is shown half way to the sampled frames that do not have it."""
Bools = npt.NDArray[np.bool_]
ALL, UNNAMED = "all", "unknown"
_UNSEEN_CELLS = 12
"""Mean colours across the shorter side of a frame that was not looked at; nothing finer is left of it."""


@dataclass
class Annotated:
    """The film that was made of one input, or the folder of its pictures."""

    store: str
    input: str
    file: str
    frames: int
    lost_frames: int
    """Frames of the video, or pictures, that could not be decoded: left out."""
    done_share: float
    """Share of the sampled frames that was looked at when this was made."""
    unseen_frames: int
    """Frames written that lie between no two samples that were looked at; blurred as a whole if faces are blurred."""
    faces: int
    """Faces in the samples of the part that was written."""
    blurred_faces: int
    audio_streams: int
    codec: str
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


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
    """Write a film for each input (or those named) of some stores to `target`, a file or a folder, or beside the store.
    Of an input of pictures write a copy of each, into a folder.

    Raises UsageError for an unknown input or person, and for a file that exists already (unless `force`). Raises
    InputError if a video is gone or has changed.
    """
    from pipeline.faces.views.annotated_pictures import annotate_pictures, folders

    wanted = wanted or Wanted()
    items = chosen_inputs(outs, inputs)
    films, pictured = ([item for item in items if is_timed(item) == timed] for timed in (True, False))
    targets = {item: _target(item, target, len(films), bool(wanted.blur)) for item in films}
    refuse_existing(films, list(targets.values()), force)
    targets |= zip(pictured, folders(pictured, target, wanted, force) if pictured else (), strict=True)
    people = [choose(items, person) for person in wanted.blur if person not in (ALL, UNNAMED)]
    work = Work(progress or Silent())
    made = []
    for k, item in enumerate(items):
        asked = np.zeros(len(labels(item).code), bool)  # faces of the people who are asked for by id or name
        for chosen in people:
            asked |= chosen[k].rows
        annotated = _annotate_one if is_timed(item) else annotate_pictures
        made.append(_told(annotated(item, targets[item], asked, wanted, work), item, wanted, work))
    for limit in {_limit_of(item, wanted) for item in items if wanted.blur}:
        work.note(limit)
    return made


def _target(item: RunInput, target: Path | str | None, n_inputs: int, blurred: bool) -> Path:
    name = f"{item.name}_{'blurred' if blurred else 'annotated'}.mp4"
    if target is None:
        return item.store_path.parent / name
    path = Path(target).expanduser()
    if path.suffix.lower() not in CONTAINERS:
        if path.suffix and not path.is_dir():
            container_of(path)  # says which endings there are
        return path / name
    if n_inputs > 1 and not path.is_dir():
        raise UsageError(f"{path} is one file for {n_inputs} inputs; name a folder, or one input with --input")
    return path / name if path.is_dir() else path


def _annotate_one(item: RunInput, target: Path, chosen: Bools, wanted: Wanted, work: Work) -> Annotated:
    film = film_of(item)
    times, faces, sampling = film.times, read_faces(item, labels(item).code), grid(film, item)
    cover, boxes = (legs(faces, reach, sampling, times) for reach in (BLUR_REACH, DRAW_REACH))
    picture = Picture(item, faces, cover, boxes, unseen(faces, sampling, len(film)), times, chosen, wanted)
    start = float(times[0]) if wanted.start is None else wanted.start
    first, last = film.ranks(start, np.inf if wanted.stop is None else wanted.stop)
    if first >= last:
        raise UsageError(
            f"{film.path} has no frame between --start and --stop; it goes from {clock(times[0])} to "
            f"{clock(film.stop_seconds)}"
        )
    # Times stay as in the file unless they would be a nuisance: no player waits hours for the first frame.
    is_far = times[0] < 0 or times[0] > 60
    origin = first if wanted.start is not None or is_far else None
    work.started(item.name, last - first)
    written = write_film(
        film, target, first, last, origin, picture.edit,
        lambda frames, faces: work.done(item.name, frames, {"face": faces}),
    )  # fmt: skip
    work.finished(item.name)
    rank = picture.faces.rank
    inside = (rank >= first) & (rank < last)
    result = Annotated(
        store=str(item.store_path), input=item.name, file=str(target), frames=written.frames,
        lost_frames=last - first - written.frames, done_share=item.done_share,
        unseen_frames=int(picture.unseen[first:last].sum()), faces=int(inside.sum()),
        blurred_faces=int((inside & picture.hidden).sum()), audio_streams=written.audio_streams, codec=written.codec,
        notes=[*picture.notes, *written.notes, *film.losses],
    )  # fmt: skip
    return result


def _told(result: Annotated, item: RunInput, wanted: Wanted, work: Work) -> Annotated:
    """Add what the user must know of a result, and say it."""
    if result.done_share < 1:
        result.notes.append(f"{result.done_share:.0%} of the sampled frames are done; the rest shows no boxes")
    if wanted.blur and result.unseen_frames:
        unlooked = plural(result.unseen_frames, "frame" if is_timed(item) else "picture")
        result.notes.append(f"{unlooked} that the run did not look at: blurred as a whole")
    if wanted.blur and item.attributes.get("roi"):
        result.notes.append("faces outside the roi were never looked for, and are not blurred")
    for note in result.notes:
        work.note(f"{item.name}: {note}")
    if wanted.blur:
        result.notes.append(_limit_of(item, wanted))
    return result


class Picture:
    """The changes to each frame of one input, or to each of its pictures."""

    def __init__(
        self, item: RunInput, faces: Faces, cover: Legs, boxes: Legs, unseen: Bools, times: npt.NDArray[np.float64],
        chosen: Bools, wanted: Wanted,
    ) -> None:  # fmt: skip
        """`cover`: legs to blur; `boxes`: legs to draw; `unseen`, `times`: (frames,)."""
        self.faces, self._cover, self._boxes, self.unseen, self._times = faces, cover, boxes, unseen, times
        self.notes: list[str] = []
        self._who = labels(item)
        self._blurs = bool(wanted.blur)
        self.hidden = _hidden(self.faces, self._who, chosen, wanted.blur)
        self._asked = wanted.boxes
        self._shown = ~self.hidden if wanted.boxes is None else np.full(len(self.faces), wanted.boxes)
        # A name for which there is no font becomes the person's number.
        self._names = {code: drawable(name, f"person {code}") for code, name in self._who.names.items()}
        for code, name in self._who.names.items():
            shown = self._names[code]
            if shown == f"person {code}" != name:
                hint = "install one, such as Noto Sans"
                self.notes.append(f"no font here has the letters of {name!r}: shown as {shown!r}; {hint}")
        self._more = _descriptions(item, len(self.faces), self._who.source, wanted.levels)
        self._walks: tuple[Iterator[npt.NDArray[np.int64]], ...] = ()
        self._next = -1

    def edit(self, rank: int, frame_rgb: npt.NDArray[np.uint8]) -> int:
        """Blur and draw, in place; return the number of faces that are shown or blurred. Ranks must ascend."""
        if self._next < 0:
            n = len(self._times)
            self._walks = along(self._cover, rank, n), along(self._boxes, rank, n)
            self._next = rank
        for _ in range(rank - self._next):  # frames that could not be decoded
            for walk in self._walks:
                next(walk)
        self._next = rank + 1
        cover, boxes = (next(walk) for walk in self._walks)
        self.change(rank, frame_rgb, cover, boxes)
        return len(boxes)

    def change(
        self, rank: int, frame_rgb: npt.NDArray[np.uint8], cover: npt.NDArray[np.int64], boxes: npt.NDArray[np.int64]
    ) -> None:
        """Blur and draw, in place. `cover`, `boxes`: numbers of the legs to cover, and of those to draw."""
        blurred = np.empty((0, 4), np.float32)
        if self._blurs and self.unseen[rank]:
            side = min(frame_rgb.shape[:2])
            frame_rgb[:] = coarse(frame_rgb, max(2.0, side / _UNSEEN_CELLS))
        elif self._blurs:
            hidden = self.hidden
            chosen = cover[hidden[self._cover.begin[cover]] | hidden[self._cover.end[cover]]]
            blurred = covers(self.faces, self._cover, chosen, rank, self._times)
            blur(frame_rgb, blurred)
        draw(frame_rgb, self._marks(boxes, rank, blurred if self._asked is None else blurred[:0]))

    def _marks(self, which: npt.NDArray[np.int64], rank: int, blurred: Boxes) -> list[Mark]:
        """Return the marks to draw; none for a face that is hidden, even if only by the blur of another one."""
        found, marks = self._boxes, []
        nearer_end = self.faces.rank[found.end[which]] - rank < rank - self.faces.rank[found.begin[which]]
        rows = np.where(nearer_end, found.end[which], found.begin[which])
        for row, box in zip(rows.tolist(), between(self.faces, found, which, rank), strict=True):
            centre = box[:2] + box[2:] / 2
            inside = (centre >= blurred[:, :2]) & (centre <= blurred[:, :2] + blurred[:, 2:])
            if not self._shown[row] or inside.all(1).any():
                continue
            code = int(self._who.code[row])
            colour = UNKNOWN_COLOUR if code == UNKNOWN else colour_of(code)
            if self._who.source == "none":
                colour = colour_of(int(self.faces.track[row]))
            marks.append(Mark(tuple(box.tolist()), colour, self._names.get(code, ""), self._more(row)))
        return marks


def _hidden(faces: Faces, who: Labels, chosen: Bools, words: Sequence[str]) -> Bools:
    """Return bool (n,): faces to blur. `chosen`: those of people asked for. When in doubt, blur.

    A face that was not recognised counts as the named person of its track, if most of the track is that one person.
    On another track it is blurred if a face of the track is, or if all people without a name are asked for.
    """
    if ALL in words:
        return np.ones(len(faces), bool)
    named = np.isin(who.code, np.array(sorted(who.named), np.int32))
    result = chosen | (~named if UNNAMED in words else np.zeros(len(faces), bool))
    order = np.argsort(faces.track, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(faces.track[order])) + 1) if len(faces) else []:
        owners = np.unique(who.code[rows][named[rows]])
        if len(owners) == 1 and 2 * named[rows].sum() > len(rows):
            result[rows[who.code[rows] == UNKNOWN]] = result[rows[named[rows]]].any()
        elif result[rows].any():
            result[rows[~named[rows]]] = True
    return result


def _descriptions(item: RunInput, n_faces: int, source: Source, levels: bool) -> Callable[[int], str]:
    """Return a function that describes a face: its attributes, and on request how sure its name is.

    The detector's confidence is shown only in stores without people and names: behind a name it would be read as the
    name's.
    """
    arrays = item.arrays
    chosen: list[str] = [name for name in ("age", "gender", "emotion", "race") if name in arrays]
    if source == "none" and not chosen:
        chosen = ["confidence"] * ("confidence" in arrays)
    if levels and source == "identity" and "identity_level" in arrays:
        chosen = ["identity_level", *chosen]
    values = item.read(chosen) if chosen else {}
    if any(len(rows) != n_faces for rows in values.values()):
        return lambda row: ""
    classes = {name: arrays[name].attributes.get("class_names") for name in chosen}

    def describe(row: int) -> str:
        words = []
        for name in chosen:
            value, of = values[name][row], classes[name]
            if name == "identity_level":
                words += [LEVELS[value]] if Level.LIKELY <= value <= Level.SURE else []
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
