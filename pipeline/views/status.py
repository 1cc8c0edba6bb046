"""`reelgraph status`: what a store holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.models.card import NO_WEIGHTS
from pipeline.store.read import RunInput
from pipeline.store.read import open as open_store
from pipeline.text import clock, plural, plural_of

SHOWN_FAILURES = 10


def describe(out: Path) -> dict[str, Any]:
    """Return inputs with frames, rows, chunks and failures; JSON values only. No chunk is opened for the rows.

    Raises StoreError if `out` is not a store.
    """
    from pipeline.views.axes import axes_of, item_of, noun_of

    run = open_store(out)
    axes, item = axes_of([run]), item_of([run])
    inputs = [
        {
            "name": name,
            "path": one.attributes.get("path", ""),
            **({"item": one.item} if one.item != item else {}),
            "frames": one.frames_total,
            "frames_done": one.frames_done,
            "rows": one.rows,
            "chunks": one.chunks,
            "complete": bool(one.attributes.get("complete")),
            "stages": {stage: facts.get("state") for stage, facts in one.attributes.get("stages", {}).items()},
            **_forgotten(one, axes),
            "failures": one.failures,
            "unreadable": one.unreadable,
        }
        for name, one in run.inputs.items()
    ]
    return {
        "out": str(out),
        "reelgraph": run.attributes["reelgraph"],
        "created": run.attributes.get("created"),
        "done_share": run.done_share,
        "item": item,
        "noun": noun_of([run]),
        "inputs": inputs,
        "models": run.attributes.get("models", []),
        "unusable": run.attributes.get("unusable", []),
    }


def _forgotten(one: RunInput, axes: list[str]) -> dict[str, int]:
    """Return the rows that were removed from an input on purpose, by axis."""
    entries = one.attributes.get("forgotten", [])
    nouns = list(map(plural_of, axes))
    counts = {noun: [entry.get(noun, 0) for entry in entries] for noun in nouns}
    return {f"forgotten_{noun}": sum(n for n in counts[noun] if isinstance(n, int)) for noun in nouns}


def lines(status: dict[str, Any]) -> list[str]:
    """Return the status for a person."""
    shown = [f"{status['out']}: {status['done_share']:.1%} done, {plural(len(status['inputs']), 'input')}"]
    for one in status["inputs"]:
        item = one.get("item", status["noun"])
        shown.append(f"  {one['name']}: {', '.join(_facts(one, item))}")
        for failure in one["failures"][:SHOWN_FAILURES]:
            shown.append(f"    chunk {failure['chunk']}{_time_range(failure)}: {failure['error']}")
        for entry in one["unreadable"][:SHOWN_FAILURES]:
            unread = plural(len(entry["frames"]), item)
            shown.append(f"    chunk {entry['chunk']}: {unread} not read: {entry['error']}")
        if len(one["failures"]) > SHOWN_FAILURES:
            shown.append(f"    ... and {len(one['failures']) - SHOWN_FAILURES} more failed; --json shows all")
        if len(one["unreadable"]) > SHOWN_FAILURES:
            shown.append(f"    ... and {len(one['unreadable']) - SHOWN_FAILURES} more incomplete; --json shows all")
    shown += [_model(model) for model in status["models"]]
    shown += [f"  not usable: {entry['error']}" for entry in status["unusable"]]
    return shown


def _facts(one: dict[str, Any], item: str) -> list[str]:
    chunks = one["chunks"]
    facts = [f"{one['frames_done']} of {plural(one['frames'], item)}"]
    facts += [plural(count, axis) for axis, count in one["rows"].items()]
    facts.append("complete" if one["complete"] else f"{chunks['done']} of {plural(chunks['total'], 'chunk')} done")
    facts += [f"{chunks['failed']} failed"] if chunks["failed"] else []
    for name, count in one.items():
        if name.startswith("forgotten_") and count:
            noun = name.removeprefix("forgotten_")
            singular = next((axis for axis in one["rows"] if plural_of(axis) == noun), noun)
            facts.append(f"{plural(count, singular, noun)} forgotten")
    return facts


def _model(model: dict[str, Any]) -> str:
    """Return a model in one line. `--json` has what its publisher says on its use."""
    licence, runtime = (str(model.get(key) or "?") for key in ("licence", "runtime"))
    weights = model.get("weights_sha256")
    weights = None if weights == NO_WEIGHTS else weights
    return f"  model {model['name']}: {licence} ({runtime}{f', weights {weights[:12]}' if weights else ''})"


def _time_range(failure: dict[str, Any]) -> str:
    times = failure.get("time_seconds")
    return f" ({clock(times[0])}-{clock(times[1])})" if times else ""
