"""`reelgraph models`: what the zoo holds and what of it is here; downloads and checks, as a person sees them."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.engine.shipped import is_path, shipped_names
from pipeline.errors import ModelError
from pipeline.models.card import ModelCard
from pipeline.models.catalogue import cards
from pipeline.models.weights import Located, locate, weights_folder
from pipeline.text import plain, unknown

if TYPE_CHECKING:
    from rich.table import Table

HEADINGS = {
    "detector": "Detectors",
    "recogniser": "Recognisers",
    "attribute": "Attributes",
    "spoofing": "Anti-spoofing",
    "feature": "Features of pictures",
    "keypoint": "Keypoints",
    "matcher": "Matchers",
}
_OTHER_WORDS = {"recognizer": "recogniser", "embedder": "recogniser", "anti-spoofing": "spoofing"}
"""More words for kinds."""
_HOSTS = {
    "github.com": "GitHub",
    "raw.githubusercontent.com": "GitHub",
    "huggingface.co": "Hugging Face",
    "drive.google.com": "Google Drive",
}
_MODULES = {"dlib-bin": "dlib"}
"""Import names of packages that have another."""
_WIDE_ONLY = ("gives", "batch", "from")
"""Columns that terminals of less than 100 characters do not show."""
WIDTH = 118
"""Characters in a line of the table if the output is not a terminal."""


def select(words: Sequence[str]) -> list[ModelCard]:
    """Cards by name, by kind ("detector", "detectors"), or of a workflow; each once. No words: every card.

    Raises ModelError, with the nearest valid name, for a word that is none of these; WorkflowError for a bad file.
    """
    chosen: dict[str, ModelCard] = {}
    for word in words or list(HEADINGS):
        chosen |= {card.name: card for card in _cards(word)}
    return list(chosen.values())


def _cards(word: str) -> list[ModelCard]:
    known = cards()
    if word in known:
        return [known[word]]
    singular = word.lower().removesuffix("s")
    for kind in HEADINGS:
        if kind == _OTHER_WORDS.get(singular, singular):
            return [card for card in known.values() if card.kind == kind]
    if is_path(word) or word in shipped_names():
        return [known[name] for name in workflow_models(word) if name in known]  # others are files of the user's own
    raise ModelError(unknown("model", word, [*known, *HEADINGS]))


def workflow_models(path: str) -> list[str]:
    """Names of the models that a workflow uses, whether or not their weights are here. Raises WorkflowError."""
    from pipeline.engine.workflow import load_workflow

    infos = [info for node in load_workflow(path).stages for info in node.stage.models()]
    return list(dict.fromkeys(info.name for info in infos))


def describe(cards: Iterable[ModelCard]) -> dict[str, Any]:
    """Every fact of some models, and what of them is here. JSON values only; sizes in bytes, null where unknown."""
    return {"folder": str(weights_folder()), "models": [_facts(card) for card in cards]}


def _facts(card: ModelCard) -> dict[str, Any]:
    files = [_file_facts(found) for found in locate(card)]
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
        "missing_packages": _missing_packages(card),
        "size_bytes": sum(sizes) if sizes and None not in sizes else None,
        "by_path": card.by_path,
        "present": is_present(card),
        "files": files,
    }


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


def is_present(card: ModelCard) -> bool:
    """Whether a model's weights are here; a model without files of its own is here when its package is."""
    if card.by_path:
        return False
    return all(found.present for found in locate(card)) if card.weights else not _missing_packages(card)


def _missing_packages(card: ModelCard) -> list[str]:
    return [package for package in card.requires if not importlib.util.find_spec(_MODULES.get(package, package))]


def show(described: dict[str, Any], *, in_full: bool) -> None:
    """Print models: a table for each kind, or every fact of each (`in_full`)."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False)
    models = described["models"]
    if in_full:
        for model in models:
            console.print("\n".join(map(plain, _in_full(model))), soft_wrap=True)
        return
    for kind, heading in HEADINGS.items():
        of_kind = [model for model in models if model["kind"] == kind]
        if of_kind:
            console.print(_table(heading, of_kind, wide=console.width >= 100))
            for note in _notes(of_kind):
                console.print(note)
            console.print()
    here = sum(model["present"] for model in models)
    console.print(f"{here} of {len(models)} are here; others go to {described['folder']}", soft_wrap=True)
    console.print("reelgraph models NAME says all of one; reelgraph models fetch NAME downloads; verify checks")


def _table(heading: str, models: list[dict[str, Any]], wide: bool) -> Table:
    from rich import box
    from rich.table import Table

    columns = {name: cell for name, cell in _CELLS.items() if wide or name not in _WIDE_ONLY}
    table = Table(box=box.SIMPLE_HEAD, title=heading, title_justify="left", show_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(name, justify="right" if name == "size" else "left", no_wrap=name != "licence")
    for model in models:
        table.add_row(*(cell(model) for cell in columns.values()), style=None if model["present"] else "dim")
    return table


def _gives(model: dict[str, Any]) -> str:
    attribute = f"{len(model['classes'])} classes" if model["classes"] else "years"
    shown = {"detector": "boxes", "attribute": attribute, "spoofing": "real or not", "matcher": "matches"}
    return shown.get(model["kind"], f"{model['dimension']}-d")


def _origin(model: dict[str, Any]) -> str:
    if model["by_path"]:
        return "your path"
    file = next(iter(model["files"]), None)
    if file is None or (file["package"] and (file["carried"] or not file["urls"])):
        return "pip package"
    address = urlsplit(file["urls"][0])
    return "a wheel" if address.scheme == "pip" else _HOSTS.get(str(address.hostname), str(address.hostname))


def _here(model: dict[str, Any]) -> str:
    present = sum(file["present"] for file in model["files"])
    return "yes" if model["present"] else f"{present} of {len(model['files'])}" if present else "no"


_CELLS: dict[str, Callable[[dict[str, Any]], str]] = {
    "name": lambda model: model["name"],
    "gives": _gives,
    "input": lambda model: "{}×{}".format(*model["input_size"]) if model["input_size"] else "any",
    "engine": lambda model: model["engine"],
    "batch": lambda model: "yes" if model["batched"] else "no",
    "licence": lambda model: model["licence"],
    "from": _origin,
    "size": lambda model: readable(model["size_bytes"]),
    "here": _here,
}
"""Columns of the table, and what they say of a model."""


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
    packages = [f"{p}{' (not installed)' if p in model['missing_packages'] else ''}" for p in model["requires"]]
    facts = {
        "kind": model["kind"],
        "dimension": model["dimension"],
        "classes": ", ".join(model["classes"]),
        "input": "{} × {} pixels".format(*model["input_size"]) if model["input_size"] else "frames of any size",
        "engine": model["engine"],
        "batched": "yes" if model["batched"] else f"no: {model['one_at_a_time']}",
        "needs": ", ".join(packages),
        "licence": model["licence"],
        "says who": model["licence_source"],
    }
    lines = [model["name"], *(f"  {what}: {value}" for what, value in facts.items() if value)]
    for file in model["files"]:
        state = "" if file["present"] else f"  (missing; run: {file['remedy']})"
        lines.append(f"  file: {file['path']}{state}")
        carrier = [f"pip package {file['package']}"] if file["package"] else []
        lines += [f"    from: {source}" for source in (*carrier, *file["urls"])]
        lines.append(f"    size: {readable(file['size_bytes'])}, sha256: {file['sha256'] or 'not published'}")
    return lines


def readable(size_bytes: int | None) -> str:
    """A size as a person says it, in decimal units; "?" where it is not known."""
    if not size_bytes:
        return "?"
    if size_bytes < 1_000_000:
        return f"{size_bytes / 1e3:.0f} kB"
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes < 99_950_000 else f"{size_bytes / 1e6:.0f} MB"


class Downloads:
    """Report downloads on stderr. A terminal shows a bar for each file, with rate and time left; elsewhere there is a
    line when something happens, and at most one every `interval_seconds` while a download goes on."""

    def __init__(self, terminal: bool | None = None, interval_seconds: float = 10.0) -> None:
        """`terminal`: None, to look whether stderr is one."""
        from rich import progress
        from rich.console import Console

        self.lines = not (sys.stderr.isatty() if terminal is None else terminal)
        self.interval, self.last = interval_seconds, 0.0
        self.done = self.total = 0
        self.console = Console(stderr=True)
        self.rows: dict[str, progress.TaskID] = {}
        self.bars = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=30),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
            console=self.console,
            disable=self.lines,
        )

    def __enter__(self) -> Downloads:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def started(self, name: str, url: str, done: int, total: int) -> None:
        self.done, self.total = done, total
        if name not in self.rows:
            self.rows[name] = self.bars.add_task(name, total=total or None)
        self.bars.update(self.rows[name], total=total or None, completed=done)
        if self.lines:
            self.note(f"{name}: {readable(total)} from {url}{f', {readable(done)} are here' if done else ''}")

    def advanced(self, name: str, n_bytes: int) -> None:
        self.bars.advance(self.rows[name], n_bytes)
        self.done += n_bytes
        if self.lines and self.done < self.total and time.monotonic() - self.last >= self.interval:
            self.note(f"{name}: {readable(self.done)} of {readable(self.total)}")

    def finished(self, name: str, path: Path, size: int) -> None:
        self.note(f"{name}: {readable(size)} at {path}")

    def note(self, text: str) -> None:
        self.last = time.monotonic()
        if self.lines:
            print(plain(text), file=sys.stderr, flush=True)
        else:
            self.console.print(plain(text), highlight=False, markup=False, soft_wrap=True)


def fetch(cards: Sequence[ModelCard], *, force: bool = False) -> tuple[dict[str, Any], int]:
    """Fetch models one after the other, with progress on stderr: what came of each, and the exit code.

    A model that cannot be had does not stop the others: exit code 1 then, 2 where none could be had.
    Raises DiskError where nothing can be written.
    """
    from pipeline.models import download

    results: list[dict[str, Any]] = []
    with Downloads() as reporter:
        for card in cards:
            paths: list[Path] = []
            error = ""
            try:
                paths = download.fetch(card, reporter, force=force)
            except download.DiskError:
                raise
            except ModelError as err:
                error = str(err)
            results.append({"name": card.name, "paths": [str(path) for path in paths], "error": error})
    failed = sum(bool(result["error"]) for result in results)
    return {"models": results}, 0 if not failed else 2 if failed == len(results) else 1


def fetched_lines(fetched: dict[str, Any]) -> list[str]:
    """One line per model that is here; errors are not among them."""
    rows = []
    for result in fetched["models"]:
        if not result["error"]:
            card = cards()[result["name"]]
            missing = _missing_packages(card)
            nothing = "not fetched; set weights: PATH in the workflow" if card.by_path else "nothing to download"
            needs = f"it also needs: pip install {' '.join(missing)}" if missing else ""
            rows.append((f"{result['name']}: {', '.join(result['paths']) or nothing}", needs))
    return with_advice(rows, 4)


def verify(cards: Sequence[ModelCard], *, named: bool) -> tuple[dict[str, Any], int]:
    """Check the files that are here: size, hash, and whether the engine opens it. Exit code 1 where one is damaged,
    or, where models were `named`, missing."""
    from pipeline.models.check import check

    files = [result for card in cards for result in check(card) if named or result["state"] != "missing"]
    return {"files": files}, int(any(result["state"] != "ok" for result in files))


def verified_lines(verified: dict[str, Any]) -> list[str]:
    """One line per file, and below a bad one the command that mends it."""
    rows = [
        ("{state:8} {model}: {why}, {path}".format(**file), f"run: {file['remedy']}" if file["remedy"] else "")
        for file in verified["files"]
    ]
    return with_advice(rows, 9) or ["no weights are here; run: reelgraph models fetch NAME"]


def with_advice(rows: Iterable[tuple[str, str]], indent: int) -> list[str]:
    """Return each line, and below it, indented, what to do about it if there is anything to do."""
    return [line for said, advice in rows for line in (said, " " * indent + advice) if line.strip()]
