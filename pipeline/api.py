"""`pipeline.run` and `pipeline.plan`: the engine that the command line calls too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pipeline.engine.events import Listener
    from pipeline.faces.table import FacesRun
    from pipeline.views.plan import PlanView


def run(
    workflow: str | Path,
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    executor: Literal["dask", "inline"] = "dask",
    set: Mapping[str, Any] | str | Sequence[str] = (),
    fresh: bool = False,
    retry_failed: bool = False,
    accept_failed: bool = False,
    prune: bool = False,
    keep_stale: str | Sequence[str] = (),
    attempts: int | None = None,
    together: int = 1,
    debug: bool = False,
    listener: Listener | None = None,
    **cluster: Any,
) -> FacesRun:
    """Run a workflow over inputs into the store `out`, or carry on where it stopped; return the opened store.

    - `workflow`: a YAML file, or the name of a shipped one, "faces"
    - `inputs`: files, folders, globs, list files
    - `executor`: "inline" runs everything in this process, without Dask
    - `set`: options to change, `{"detect.min_face": 40}`
    - `fresh`: delete what the store holds; `retry_failed`: take failed chunks again; `accept_failed`: close inputs
      without them
    - `prune`: remove pictures that are gone, and read those again that have changed
    - `keep_stale`: stages whose stored arrays stay although their code or options changed
    - `attempts`: tries of a chunk before it is recorded as failed, by default 2, or 3 if its worker dies
    - `together`: inputs that advance at the same time, their chunks taken in turns
    - `debug`: raise what a stage raises, with executor "inline"
    - `listener`: an object whose `on` gets every event (`pipeline.engine.events`) as it happens
    - `cluster`: fields of `pipeline.cluster.options.ClusterOptions`: `workers=4`, `gpus=("0", "1")`

    The returned store has the run's `summary`. Raises ReelgraphError for a user's mistake; failed chunks do not raise.
    """
    from pipeline.cluster.execute import execute
    from pipeline.cluster.options import ClusterOptions
    from pipeline.engine.events import Silent
    from pipeline.engine.run import RunOptions
    from pipeline.faces.table import open as open_store

    texts = _as_overrides(set) if isinstance(set, Mapping) else _as_words(set)
    summary = execute(
        workflow,
        _as_words(inputs),
        out,
        overrides=texts,
        executor=executor,
        cluster=ClusterOptions.of(**cluster),
        options=RunOptions(fresh, retry_failed, accept_failed, prune, tuple(_as_words(keep_stale)), attempts, together),
        listener=listener or Silent(),
        debug=debug,
    )
    opened = open_store(out)
    opened.summary = summary
    return opened


def _as_overrides(values: Mapping[str, Any]) -> list[str]:
    """Return values of Python as `--set` takes them: as JSON, for a text such as "a # b" is something else in YAML."""
    return [f"{key}={json.dumps(value, default=str, ensure_ascii=False)}" for key, value in values.items()]


def _as_words(given: str | Path | Sequence[str | Path]) -> list[str]:
    """Return texts as the command line gives them; a text or a path alone is one of them, not its letters."""
    return [str(given)] if isinstance(given, str | Path) else [str(one) for one in given]


def plan(
    workflow: str | Path,
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    overrides: str | Sequence[str] = (),
) -> PlanView:
    """Say what `run` would do, without doing it: chunks, items, memory, hours, disk, and what is done already."""
    from pipeline.engine.workflow import load_workflow
    from pipeline.views.plan import survey

    return survey(load_workflow(workflow, _as_words(overrides)), _as_words(inputs), Path(out).expanduser())
