"""Panels: what a domain adds to a report. Subclass `Panel` and name the class in the entry point group
`reelgraph.panels`; a report makes every panel whose axis the stores have.

A report reads each input once, in blocks, and hands every block to the panels of its axis:

    panel = Speeders(about)                 # for each report
    panel.start(one)                        # for each input: returns the arrays that it wants
    panel.add(one, block)                   # for each block of rows
    panel.finish(one)
    panel.content()                         # after all inputs
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.store.read import Run
from pipeline.text import plain
from pipeline.views.tables.rows import Block

if TYPE_CHECKING:
    from pipeline.views.report.survey import Surveyed


@dataclass(frozen=True)
class About:
    """Facts of the whole report, known before an input is read."""

    runs: tuple[Run, ...]
    n_inputs: int
    pictures: bool = True
    """False if the page must not show pictures."""

    def name_of(self, one: Surveyed) -> str:
        """Return an input's name on the page, with its store's name if there are several stores."""
        return f"{one.run.path.name} / {one.item.name}" if len(self.runs) > 1 else one.item.name


@dataclass(frozen=True)
class Tile:
    """A figure at the top of the page."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading."""

    id: str
    title: str
    html: str
    """Markup, made with `fill`, which escapes texts."""
    is_first: bool = False
    """True to stand before the timeline."""


@dataclass(frozen=True)
class Lanes:
    """Rows of the timelines that show when something was there: one lane per name."""

    names: Sequence[str]
    one: str
    """Noun of one name: "person"."""
    many: str
    """"people"."""
    everything: str
    """All names together, in the choice of one: "everybody"."""
    chooser: str
    """What is chosen for one name: "Attributes of"."""
    link: str = ""
    """Id of the element of a name on the page, without its number: "person-"."""
    rest: str = ""
    """Label of the lane of what has no name: "unknown"."""
    rest_title: str = ""
    """The same in full: "faces of unknown people"."""
    there: str = "on screen"
    absent: str = "not seen"
    overview: str = ""
    """Heading of the table of names and inputs, which is shown from four inputs on; "" for none."""
    overview_help: str = ""
    help: str = ""
    """What the timelines show, in a sentence."""

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "names": list(self.names)}


@dataclass
class InputContent:
    """What a panel has to say of one input."""

    facts: list[str] = field(default_factory=list)
    """Short texts in the heading of its timeline: "3 people"."""
    cells: list[str] = field(default_factory=list)
    """Cells in the table of inputs, one per `Content.columns`."""
    lanes: dict[str, Any] | None = None
    """`rows`: lanes with something in them (`of`: place in `Lanes.names`; `seconds`; `at`: stretches, see `coded`);
    `others`: how many more there are; `rest`: per bin, of what has no name."""
    series: dict[str, Any] = field(default_factory=dict)
    """Values over time by title: `mean`, `low`, `high` per bin, or `shares` (one list per class) with `classes`;
    `followed`: the same of single lanes (`of`)."""


@dataclass
class Content:
    """All that a panel adds to the page."""

    inputs: Sequence[InputContent]
    """One per input, in order."""
    subtitle: str = ""
    """What the report is about, in the page's title: "who is on screen"."""
    tiles: Sequence[Tile] = ()
    """Before the tiles of rows and items."""
    notes: dict[str, str] = field(default_factory=dict)
    """Note in the tile of an axis: {"face": "12 unknown"}."""
    columns: Sequence[str] = ()
    """Heads of further columns in the table of inputs."""
    sections: Sequence[Section] = ()
    lanes: Lanes | None = None
    histograms: dict[str, Any] = field(default_factory=dict)
    """Drawn in elements of class `histogram` with `data-of` the name: `edges`, `counts`, `noun`."""
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    """Further counts of the command's JSON and its line, by noun and plural: {("person", "people"): 4}."""
    style: str = ""
    script: str = ""
    """Runs after the frame's own script."""


class Panel(ABC):
    """A part of the report about the rows of one axis."""

    axis: str
    """Axis whose rows the panel is about."""
    kinds: ClassVar[dict[str, str]] = {}
    """Words for kinds of models, if the kind of a model's card is not shown as it is."""

    def __init__(self, about: About) -> None:
        self.about = about

    def start(self, one: Surveyed) -> Sequence[str]:
        """Begin an input that has such rows; return the arrays to be in its blocks, by name, as far as it has them."""
        return ()

    def add(self, one: Surveyed, block: Block) -> None:
        """Take the next rows of the input."""
        return

    def finish(self, one: Surveyed) -> None:
        """End an input."""
        return

    @abstractmethod
    def content(self, inputs: Sequence[Surveyed]) -> Content:
        """Return what to put on the page."""


def text_of(package: str, name: str) -> str:
    """Return a text file of a package."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def fill(package: str, template: str, **values: Any) -> str:
    """Return a Jinja template of a package, filled in. Every text is escaped, except those marked as `safe`."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: text_of(package, name)), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=shown,
    )  # fmt: skip
    environment.filters["grouped"] = grouped
    return environment.get_template(template).render(**values)


def shown(value: Any) -> Any:
    """Return a value with all texts in it as the page may show them; what is marked as safe stays as it is."""
    if isinstance(value, dict):
        return {key: shown(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [shown(one) for one in value]
    return plain(value) if type(value) is str else value


def grouped(number: int) -> str:
    """Return a number with a thin space between thousands."""
    return f"{number:,}".replace(",", "\u202f")


def counted(count: int, one: str, many: str) -> str:
    """Return a grouped number with its noun: "1 person", "1 200 people"."""
    return f"{grouped(count)} {one if count == 1 else many}"


def coded(spans: Sequence[tuple[float, float]], start: float) -> list[int]:
    """Return stretches in tenths of a second: from the last stop (first `start`) to the start, then how long, ..."""
    found: list[int] = []
    last = 0
    for begin, end in spans:
        first = max(last, round((begin - start) * 10))
        stop = max(first + 1, round((end - start) * 10))
        found += [first - last, stop - first]
        last = stop
    return found
