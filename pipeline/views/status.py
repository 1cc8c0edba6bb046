"""`reelgraph status`: what a store holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.text import clock

SHOWN_FAILURES = 10


def describe(out: Path) -> dict[str, Any]:
    """Inputs with frames, chunks and failures; JSON values only. Raises StoreError where `out` is no store."""
    from pipeline.store.read import open as open_store

    run = open_store(out)
    inputs = [
        {
            "name": name,
            "path": one.attributes["path"],
            "frames": one.frames_total,
            "frames_done": one.frames_done,
            "chunks": one.chunks,
            "complete": bool(one.attributes.get("complete")),
            "stages": {stage: facts["state"] for stage, facts in one.attributes.get("stages", {}).items()},
            "forgotten_faces": sum(entry["faces"] for entry in one.attributes.get("forgotten", [])),
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
        "inputs": inputs,
        "models": run.attributes.get("models", []),
        "unusable": run.attributes.get("unusable", []),
    }


def lines(status: dict[str, Any]) -> list[str]:
    shown = [f"{status['out']}: {status['done_share']:.1%} done, {len(status['inputs'])} inputs"]
    for one in status["inputs"]:
        chunks = one["chunks"]
        state = "complete" if one["complete"] else f"{chunks['done']} of {chunks['total']} chunks done"
        failed = f", {chunks['failed']} failed" if chunks["failed"] else ""
        forgotten = f", {one['forgotten_faces']} faces forgotten" if one["forgotten_faces"] else ""
        shown.append(f"  {one['name']}: {one['frames_done']} of {one['frames']} frames, {state}{failed}{forgotten}")
        for failure in one["failures"][:SHOWN_FAILURES]:
            shown.append(f"    chunk {failure['chunk']}{_time_range(failure)}: {failure['error']}")
        for entry in one["unreadable"][:SHOWN_FAILURES]:
            shown.append(f"    chunk {entry['chunk']}: {len(entry['frames'])} frames not read: {entry['error']}")
        if len(one["failures"]) > SHOWN_FAILURES:
            shown.append(f"    ... and {len(one['failures']) - SHOWN_FAILURES} more failed; --json shows all")
        if len(one["unreadable"]) > SHOWN_FAILURES:
            shown.append(f"    ... and {len(one['unreadable']) - SHOWN_FAILURES} more incomplete; --json shows all")
    shown += [_model(model) for model in status["models"]]
    shown += [f"  not usable: {entry['error']}" for entry in status["unusable"]]
    return shown


def _model(model: dict[str, Any]) -> str:
    """What its weights may be used for is said by who published them: --json has their words."""
    return f"  model {model['name']}: {model['licence']} ({model['runtime']}, weights {model['weights_sha256'][:12]})"


def _time_range(failure: dict[str, Any]) -> str:
    times = failure.get("time_seconds")
    return f" ({clock(times[0])}-{clock(times[1])})" if times else ""
