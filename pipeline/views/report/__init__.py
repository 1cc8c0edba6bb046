"""`reelgraph report`: one HTML file about stores: what was found over time, what failed, how fast it went, licences."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.engine.events import Listener, PassStarted, Silent
from pipeline.engine.finding import PANELS, find_each
from pipeline.errors import UsageError
from pipeline.files.regular import open_file
from pipeline.files.whole import written_whole
from pipeline.store.nodes import located
from pipeline.store.read import open as open_store
from pipeline.store.run import each_once
from pipeline.text import plural, plural_of
from pipeline.views.axes import axes_of, item_of, noun_of
from pipeline.views.progress import Work
from pipeline.views.report.content import content
from pipeline.views.report.panel import About, Panel, fill, shown, text_of
from pipeline.views.report.plain import PlainPanel
from pipeline.views.report.survey import survey

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
    item: str
    items: int
    """Items that are done."""
    further: dict[str, int]
    """The same of further passes, by the name of one: {"pair": 45}."""
    rows: dict[str, int]
    """Rows by axis."""
    done_share: float
    failures: int
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    """Counts of panels by noun and plural: {("person", "people"): 4}."""

    @property
    def _by_noun(self) -> dict[str, int]:
        rows = {plural_of(axis): count for axis, count in self.rows.items()}
        more = {many: count for (_, many), count in self.counts.items()}
        items = {plural_of(noun): count for noun, count in {self.item: self.items, **self.further}.items()}
        return {**items, **rows, **more}

    def __getattr__(self, name: str) -> int:
        """Return a count by its plural noun: `reported.frames`, `reported.people`."""
        if name in ("item", "items", "further", "rows", "counts") or name not in self._by_noun:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self._by_noun[name]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; counts have the plural of their noun as key."""
        return {
            "file": self.file, "bytes": self.bytes, "inputs": self.inputs, **self._by_noun,
            "done_share": self.done_share, "failures": self.failures,
        }  # fmt: skip


def report(
    outs: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    to: str | os.PathLike[str] | None = None,
    *,
    pictures: bool = True,
    progress: Listener | None = None,
) -> Reported:
    """Write the report of one or several stores, done or half done. `to` None: beside the first store, OUT.html.

    An older report is replaced, any other file is not. `pictures` False leaves pictures of what was found out. Raises
    StoreError if a store cannot be read, UsageError if the file cannot be written.
    """
    paths = [outs] if isinstance(outs, str | os.PathLike) else list(outs)
    place = Path(to).expanduser() if to is not None else default_place(paths[0])
    _check(place)
    runs = tuple(open_store(path) for path in each_once(paths))
    pairs = [(run, item) for run in runs for item in run.inputs.values()]
    axes, noun = axes_of(runs), noun_of(runs)
    about = About(runs, len(pairs), pictures)
    nouns = {axis: noun_of(runs, item_of(runs, axis)) for axis in axes}
    kinds = find_each("panel", PANELS, Panel)  # type: ignore[type-abstract]
    made = [kind(about) for kind in kinds.values() if kind.axis in nouns]
    told = {panel.axis for panel in made}
    panels = [*made, *(PlainPanel(about, axis, item) for axis, item in nouns.items() if axis not in told)]
    inputs = []
    listener = progress or Silent()
    work, counted = Work(listener), "frame"
    for run, item in pairs:
        if noun_of(runs, item.item) != counted:
            counted = noun_of(runs, item.item)
            alike = sum(noun_of(runs, one.item) == counted for _, one in pairs)
            listener.on(PassStarted(alike, counted, ()))
        shown = item.name if len(runs) == 1 else f"{run.path.name}/{item.name}"
        inputs.append(survey(run, item, shown, work, axes, panels, len(pairs), counted))
    filled = content(about, inputs, axes, noun, panels)
    counts = filled.pop("counts")
    page = render(filled).encode(errors="backslashreplace")  # names of files need not be UTF-8
    with written_whole(place) as file:
        file.write(page)
    totals = filled["totals"]
    failures = sum(len(one.failures) for one in inputs) + len(filled["unusable"])
    return Reported(
        str(place), len(page), len(inputs), noun, totals["items"],
        {one["noun"]: one["items"] for one in totals["further"]}, totals["rows"], totals["share"], failures, counts,
    )  # fmt: skip


def default_place(out: str | os.PathLike[str]) -> Path:
    """Return the report's path beside the store: runs/clip.zarr -> runs/clip.html."""
    store = located(out)
    return store.with_name(f"{store.name.removesuffix('.zarr')}.html")


def render(filled: dict[str, Any]) -> str:
    """Return the page, with style and script inside. Every text is escaped: names and paths may hold anything."""
    style, script = filled["style"], filled["script"]
    script = "\n".join(filter(None, [text_of(__name__, SCRIPT), script]))
    values = {**filled, "style": f"{text_of(__name__, STYLE)}{style}", "script": script, "script_hash": _hash(script)}
    return fill(__name__, TEMPLATE, **values, charts_json=_inert(shown(filled["charts"])))


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
    rows = [plural(count, axis) for axis, count in reported.rows.items()]
    more = [plural(count, one, many) for (one, many), count in reported.counts.items()]
    shown = [f"{reported.file}: {', '.join([plural(reported.inputs, 'input'), *rows, *more])} ({size})"]
    if reported.done_share < 1 and reported.inputs:
        nouns = " and ".join(map(plural_of, [reported.item, *reported.further]))
        shown.append(f"{reported.done_share:.1%} of the {nouns} are done; the report says which are not")
    return shown


def _check(place: Path) -> None:
    if place.is_dir():
        raise UsageError(f"{place} is a folder; name a file, for example {place / 'report.html'}")
    try:
        with open_file(place) as file:
            head = file.read(4096)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as err:
        raise UsageError(f"{place} cannot be replaced: {err.strerror}; choose another file with --out") from err
    if _GENERATOR not in head:
        raise UsageError(f"{place} exists and is not a report of ours; choose another file with --out")
