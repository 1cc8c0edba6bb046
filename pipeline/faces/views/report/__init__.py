"""`reelgraph report`: one HTML file that says who is on screen when, and how the run went."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.engine.events import Silent
from pipeline.errors import UsageError
from pipeline.faces.views.report.content import content
from pipeline.faces.views.report.people import gather
from pipeline.faces.views.report.pictures import add_pictures, pictures_of_nobody
from pipeline.faces.views.report.series import Histogram
from pipeline.faces.views.report.survey import CONFIDENCE_EDGES, SIZE_EDGES, survey
from pipeline.files.whole import written_whole
from pipeline.store.read import open as open_store
from pipeline.store.run import each_once
from pipeline.text import plural
from pipeline.views.progress import Work

if TYPE_CHECKING:
    from pipeline.engine.events import Listener

TEMPLATE, STYLE, SCRIPT = "page.html", "page.css", "page.js"
"""Names of the page's parts, files of this package."""
_GENERATOR = b'<meta name="generator" content="reelgraph'
"""Line near the head of every report: a file with it may be replaced by a newer report."""


@dataclass(frozen=True)
class Reported:
    """Facts of a report that was written."""

    file: str
    bytes: int
    inputs: int
    frames: int
    faces: int
    people: int
    done_share: float
    failures: int

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def report(
    outs: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    to: str | os.PathLike[str] | None = None,
    *,
    pictures: bool = True,
    progress: Listener | None = None,
) -> Reported:
    """Write the report of one or several stores, complete or not. `to` None: OUT.html beside the first store.

    An older report is replaced, any other file is not. `pictures` False leaves faces out. Raises StoreError if a store
    cannot be read, UsageError if the file cannot be written.
    """
    paths = [outs] if isinstance(outs, str | os.PathLike) else list(outs)
    place = Path(to) if to is not None else default_place(paths[0])
    _check(place)
    runs = [open_store(path) for path in each_once(paths)]
    pairs = [(run, item) for run in runs for item in run.inputs.values()]
    confidence, size = Histogram(CONFIDENCE_EDGES, grows=True), Histogram(SIZE_EDGES)
    inputs = []
    work = Work(progress or Silent())
    for run, item in pairs:
        shown = item.name if len(runs) == 1 else f"{run.path.name}/{item.name}"
        inputs.append(survey(run, item, shown, work, n_inputs=len(pairs), confidence=confidence, size=size))
    people = gather(inputs)
    nobody: list[str] = []
    if pictures:
        add_pictures(people, inputs)
        nobody = [] if people else pictures_of_nobody(inputs)
    filled = content(runs, inputs, people, nobody, confidence, size)
    page = render(filled).encode()
    with written_whole(place) as file:
        file.write(page)
    totals = filled["totals"]
    return Reported(
        str(place), len(page), len(inputs), totals["frames"], totals["faces"], totals["people"], totals["share"],
        sum(len(one.failures) for one in inputs) + len(filled["unusable"]),
    )  # fmt: skip


def default_place(out: str | os.PathLike[str]) -> Path:
    """Return OUT.html beside the store: runs/clip.zarr -> runs/clip.html."""
    store = Path(out).expanduser().resolve()
    return store.with_name(f"{store.name.removesuffix('.zarr')}.html")


def render(filled: dict[str, Any]) -> str:
    """Return the page, with style and script inside. Every text is escaped: names and paths may hold anything."""
    import jinja2

    def text_of(name: str) -> str:
        return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(text_of), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.globals["script_hash"] = _hash(text_of(SCRIPT))
    environment.filters["grouped"] = lambda number: f"{number:,}".replace(",", "\u202f")
    return environment.get_template(TEMPLATE).render(
        **filled, style=text_of(STYLE), script=text_of(SCRIPT), charts_json=_inert(filled["charts"])
    )


def _hash(script: str) -> str:
    """Return the hash by which the page's own policy allows its one script, and no script in a name."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _inert(values: Any) -> str:
    """Return JSON that can neither end a script element nor open a comment."""
    text = json.dumps(values, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def lines(reported: Reported) -> list[str]:
    """Return the lines to print about a report."""
    size = f"{reported.bytes / 1e6:.1f} MB" if reported.bytes >= 1e5 else f"{reported.bytes / 1e3:.0f} kB"
    inputs, faces = plural(reported.inputs, "input"), plural(reported.faces, "face")
    shown = [f"{reported.file}: {inputs}, {faces}, {plural(reported.people, 'person', 'people')} ({size})"]
    if reported.done_share < 1 and reported.inputs:
        shown.append(f"{reported.done_share:.1%} of the frames are done; the report says which are not")
    return shown


def _check(place: Path) -> None:
    if place.is_dir():
        raise UsageError(f"{place} is a folder; name a file, for example {place / 'report.html'}")
    if place.exists() and _GENERATOR not in place.read_bytes()[:4096]:
        raise UsageError(f"{place} exists and is not a report of ours; choose another file with --out")
