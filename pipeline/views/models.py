"""`reelgraph models`: what the zoo holds and what of it is here; downloads and checks, as a person sees them."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.errors import ModelError
from pipeline.faces.models import zoo
from pipeline.models.card import ModelCard
from pipeline.models.weights import Located, locate, weights_folder
from pipeline.text import unknown

if TYPE_CHECKING:
    from rich.console import JustifyMethod
    from rich.table import Table

HEADINGS: dict[zoo.Kind, str] = {
    "detector": "Detectors",
    "recogniser": "Recognisers",
    "attribute": "Attributes",
    "spoofing": "Anti-spoofing",
}
_KIND_WORDS: dict[str, zoo.Kind] = {
    "detector": "detector",
    "recogniser": "recogniser",
    "recognizer": "recogniser",
    "embedder": "recogniser",
    "attribute": "attribute",
    "spoofing": "spoofing",
    "anti-spoofing": "spoofing",
}
_HOSTS = {"github.com": "GitHub", "huggingface.co": "Hugging Face", "drive.google.com": "Google Drive"}
_MODULES = {"dlib-bin": "dlib"}
"""Import names of packages that have another."""
COLUMNS = ("name", "gives", "input", "engine", "batch", "licence", "from", "size", "here")
NARROW_COLUMNS = ("name", "input", "engine", "licence", "size", "here")
"""For terminals of less than 100 columns."""
WIDTH = 118
"""Columns of the table where the output is no terminal."""


def select(words: Sequence[str]) -> list[ModelCard]:
    """Cards by name, by kind ("detector", "detectors"), or of a workflow file; each once. No words: every card.

    Raises ModelError, with the nearest valid name, for a word that is none of these; WorkflowError for a bad file.
    """
    chosen: dict[str, ModelCard] = {}
    for word in words or list(HEADINGS):
        chosen |= {card.name: card for card in _cards(word)}
    return list(chosen.values())


def _cards(word: str) -> list[ModelCard]:
    if word in zoo.CARDS:
        return [zoo.CARDS[word]]
    kind = _KIND_WORDS.get(word.lower().removesuffix("s"))
    if kind is not None:
        return [zoo.CARDS[name] for name in zoo.names(kind)]
    if word.endswith((".yaml", ".yml")):
        return [zoo.CARDS[name] for name in workflow_models(word)]
    raise ModelError(unknown("model", word, [*zoo.CARDS, *HEADINGS]))


def workflow_models(path: str) -> list[str]:
    """Names of the models that a workflow file uses, whether or not their weights are here. Raises WorkflowError."""
    from pipeline.engine.workflow import load_workflow

    infos = [info for node in load_workflow(path).stages for info in node.stage.models()]
    return list(dict.fromkeys(info.name for info in infos))


def describe(cards: Iterable[ModelCard]) -> dict[str, Any]:
    """Every fact of some models, and what of them is here. JSON values only; sizes in bytes, null where unknown."""
    return {"folder": str(weights_folder()), "models": [_facts(card) for card in cards]}


def _facts(card: ModelCard) -> dict[str, Any]:
    files = [_file_facts(found) for found in locate(card)]
    missing = [package for package in card.requires if not _installed(package)]
    sizes = [file["size_bytes"] for file in files]
    return {
        "name": card.name,
        "kind": card.kind,
        "dimension": card.dimension or None,
        "classes": list(card.classes),
        "input_size": list(card.input_size) if card.input_size else None,
        "engine": card.engine,
        "licence": card.licence,
        "licence_source": card.licence_source,
        "batched": not card.one_at_a_time,
        "one_at_a_time": card.one_at_a_time,
        "requires": list(card.requires),
        "missing_packages": missing,
        "size_bytes": sum(sizes) if sizes and None not in sizes else None,
        "present": is_present(card),
        "files": files,
    }


def is_present(card: ModelCard) -> bool:
    """Whether a model's weights are here; a model without files of its own is here when its package is."""
    if not card.weights:
        return all(_installed(package) for package in card.requires)
    return all(found.present for found in locate(card))


def _file_facts(found: Located) -> dict[str, Any]:
    size = found.path.stat().st_size if found.present else found.file.size_bytes
    return {
        "name": found.file.name,
        "present": found.present,
        "path": str(found.path),
        "package": found.file.packaged.project if found.file.packaged else "",
        "carried": bool(found.present and found.package),
        "urls": list(found.file.urls),
        "size_bytes": size or None,
        "sha256": found.file.sha256,
        "remedy": "" if found.present else found.remedy,
    }


def _installed(package: str) -> bool:
    return importlib.util.find_spec(_MODULES.get(package, package)) is not None


def show(described: dict[str, Any], *, in_full: bool) -> None:
    """Print models: a table for each kind, or every fact of each (`in_full`)."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else WIDTH
    console = Console(width=width, highlight=False, markup=False)
    if in_full:
        for model in described["models"]:
            console.print("\n".join(_in_full(model)), soft_wrap=True)
        return
    for kind, heading in HEADINGS.items():
        models = [model for model in described["models"] if model["kind"] == kind]
        if models:
            console.print(_table(heading, models, COLUMNS if console.width >= 100 else NARROW_COLUMNS))
            for note in _notes(models):
                console.print(note)
            console.print()
    here = sum(model["present"] for model in described["models"])
    console.print(f"{here} of {len(described['models'])} are here; others go to {described['folder']}", soft_wrap=True)
    console.print("reelgraph models NAME says all of one; reelgraph models fetch NAME downloads; verify checks")


def _table(heading: str, models: list[dict[str, Any]], columns: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=heading, title_justify="left", show_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        side: JustifyMethod = "right" if name == "size" else "left"
        table.add_column(name, justify=side, no_wrap=name != "licence")
    for model in models:
        row = _row(model)
        table.add_row(*(row[name] for name in columns), style=None if model["present"] else "dim")
    return table


def _row(model: dict[str, Any]) -> dict[str, str]:
    gives = {
        "detector": "boxes",
        "recogniser": f"{model['dimension']}-d",
        "attribute": f"{len(model['classes'])} classes" if model["classes"] else "years",
        "spoofing": "real or not",
    }[model["kind"]]
    return {
        "name": model["name"],
        "gives": gives,
        "input": "{}×{}".format(*model["input_size"]) if model["input_size"] else "any",
        "engine": model["engine"],
        "batch": "yes" if model["batched"] else "no",
        "licence": model["licence"],
        "from": _origin(model),
        "size": readable(model["size_bytes"]),
        "here": _here(model),
    }


def _origin(model: dict[str, Any]) -> str:
    if not model["files"]:
        return "pip package"
    file = model["files"][0]
    if file["package"] and (file["carried"] or not file["urls"]):
        return "pip package"
    host = str(urlsplit(file["urls"][0]).hostname)
    return _HOSTS.get(host, host)


def _here(model: dict[str, Any]) -> str:
    present = sum(file["present"] for file in model["files"])
    if model["present"]:
        return "yes"
    return f"{present} of {len(model['files'])}" if present else "no"


def _notes(models: list[dict[str, Any]]) -> list[str]:
    """What does not fit into the table: why some are not batched, and what pip has to bring; models share lines."""
    reasons: dict[str, list[str]] = {}
    for model in models:
        if model["one_at_a_time"]:
            reasons.setdefault(f"one picture at a time, as {model['one_at_a_time']}", []).append(model["name"])
        if model["missing_packages"]:
            reasons.setdefault(f"pip install {' '.join(model['missing_packages'])}", []).append(model["name"])
    return [f"  {', '.join(names)}: {reason}" for reason, names in reasons.items()]


def _in_full(model: dict[str, Any]) -> list[str]:
    input_size = "{} × {} pixels".format(*model["input_size"]) if model["input_size"] else "frames of any size"
    gives = model["classes"] and ", ".join(model["classes"])
    packages = [f"{p}{' (not installed)' if p in model['missing_packages'] else ''}" for p in model["requires"]]
    facts = [
        ("kind", model["kind"]),
        ("dimension", model["dimension"]),
        ("classes", gives),
        ("input", input_size),
        ("engine", model["engine"]),
        ("batched", "yes" if model["batched"] else f"no: {model['one_at_a_time']}"),
        ("needs", ", ".join(packages)),
        ("licence", model["licence"]),
        ("says who", model["licence_source"]),
    ]
    lines = [model["name"], *(f"  {what}: {value}" for what, value in facts if value)]
    for file in model["files"]:
        state = "" if file["present"] else f"  (missing; run: {file['remedy']})"
        lines.append(f"  file: {file['path']}{state}")
        packages = [f"pip package {file['package']}"] if file["package"] else []
        lines += [f"    from: {source}" for source in (*packages, *file["urls"])]
        lines.append(f"    size: {readable(file['size_bytes'])}, sha256: {file['sha256'] or 'not published'}")
    return lines


def readable(size_bytes: int | None) -> str:
    """A size as a person says it, in decimal units; "?" where it is not known."""
    if not size_bytes:
        return "?"
    if size_bytes < 1_000_000:
        return f"{size_bytes / 1e3:.0f} kB"
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes < 99_950_000 else f"{size_bytes / 1e6:.0f} MB"


class PlainDownloads:
    """A line when something happens and at most one every `interval_seconds` for a download that goes on; on stderr."""

    def __init__(self, interval_seconds: float = 10.0) -> None:
        self.interval = interval_seconds
        self.done = self.total = 0
        self.last = 0.0

    def __enter__(self) -> PlainDownloads:
        return self

    def __exit__(self, *_: object) -> None: ...

    def started(self, name: str, url: str, done: int, total: int) -> None:
        self.done, self.total = done, total
        resumed = f", {readable(done)} are here" if done else ""
        self.note(f"{name}: {readable(total)} from {url}{resumed}")

    def advanced(self, name: str, n_bytes: int) -> None:
        self.done += n_bytes
        if time.monotonic() - self.last >= self.interval and self.done < self.total:
            self.note(f"{name}: {readable(self.done)} of {readable(self.total)}")

    def finished(self, name: str, path: Path, size: int) -> None:
        self.note(f"{name}: {readable(size)} at {path}")

    def note(self, text: str) -> None:
        self.last = time.monotonic()
        print(text, file=sys.stderr, flush=True)


class DownloadBars:
    """One bar per file, with rate and time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as Speed

        self.console = Console(stderr=True)
        self.rows: dict[str, Any] = {}
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            DownloadColumn(),
            Speed(),
            TimeRemainingColumn(),
            console=self.console,
        )

    def __enter__(self) -> DownloadBars:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def started(self, name: str, url: str, done: int, total: int) -> None:
        if name not in self.rows:
            self.rows[name] = self.bars.add_task(name, total=total or None)
        self.bars.update(self.rows[name], total=total or None, completed=done)

    def advanced(self, name: str, n_bytes: int) -> None:
        self.bars.advance(self.rows[name], n_bytes)

    def finished(self, name: str, path: Path, size: int) -> None:
        self.note(f"{name}: {readable(size)} at {path}")

    def note(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def for_stderr() -> DownloadBars | PlainDownloads:
    """Bars on a terminal, lines elsewhere."""
    return DownloadBars() if sys.stderr.isatty() else PlainDownloads()


def fetch(cards: Sequence[ModelCard], *, force: bool = False) -> tuple[dict[str, Any], int]:
    """Fetch models one after the other, with progress on stderr: what came of each, and the exit code.

    A model that cannot be had does not stop the others: exit code 1 then, 2 where none could be had.
    Raises DiskError where nothing can be written.
    """
    from pipeline.models import download

    results: list[dict[str, Any]] = []
    with for_stderr() as reporter:
        for card in cards:
            try:
                paths = download.fetch(card, reporter, force=force)
                results.append({"name": card.name, "paths": [str(path) for path in paths], "error": ""})
            except download.DiskError:
                raise
            except ModelError as err:
                results.append({"name": card.name, "paths": [], "error": str(err)})
    failed = sum(bool(result["error"]) for result in results)
    return {"models": results}, 0 if not failed else 2 if failed == len(results) else 1


def fetched_lines(fetched: dict[str, Any]) -> list[str]:
    """One line per model that is here; errors are not among them."""
    lines = []
    for result in fetched["models"]:
        if not result["error"]:
            where = ", ".join(result["paths"]) or "nothing to download"
            lines.append(f"{result['name']}: {where}")
            missing = [package for package in zoo.CARDS[result["name"]].requires if not _installed(package)]
            lines += [f"    it also needs: pip install {' '.join(missing)}"] if missing else []
    return lines


def verify(cards: Sequence[ModelCard], *, named: bool) -> tuple[dict[str, Any], int]:
    """Check the files that are here: size, hash, and whether the engine opens it. Exit code 1 where one is damaged,
    or, where models were `named`, missing."""
    from pipeline.faces.models.check import check

    files = [result for card in cards for result in check(card)]
    if not named:
        files = [result for result in files if result["state"] != "missing"]
    bad = any(result["state"] != "ok" for result in files)
    return {"files": files}, int(bad)


def verified_lines(verified: dict[str, Any]) -> list[str]:
    """One line per file, and below a bad one the command that mends it."""
    lines = []
    for result in verified["files"]:
        lines.append(f"{result['state']:8} {result['model']}: {result['why']}, {result['path']}")
        if result["remedy"]:
            lines.append(f"         run: {result['remedy']}")
    return lines or ["no weights are here; run: reelgraph models fetch NAME"]
