"""`reelgraph run` and `reelgraph plan`: a workflow over inputs, done or only counted."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pipeline.commands import Command, number, positive, print_result
from pipeline.errors import UsageError


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    _add_work(parser, is_run=True)
    live = parser.add_argument_group("live inputs")
    live.add_argument(
        "--follow", metavar="FOLDER",
        help="take the files of a folder as they are finished, instead of INPUT, until SIGTERM or Ctrl-C",
    )  # fmt: skip
    live.add_argument(
        "--settle", type=_positive_seconds, default=10.0, metavar="SECONDS",
        help="time without a change after which a file counts as finished; those of `reelgraph record` are taken at "
        "once (default: 10)",
    )  # fmt: skip
    parser.add_argument(
        "--together", type=positive, default=1, metavar="N",
        help="inputs (cameras) that advance at the same time, their chunks taken in turns (default: 1, one after the "
        "other)",
    )  # fmt: skip
    cluster = parser.add_argument_group("where it runs (does not change what is computed)")
    cluster.add_argument(
        "--executor", choices=("dask", "inline"), default="dask", help="inline: in this process (default: dask)"
    )
    add_cluster_flags(cluster)
    resume = parser.add_argument_group("carrying on")
    resume.add_argument("--fresh", action="store_true", help="delete the store's content first")
    resume.add_argument("--retry-failed", action="store_true", help="take failed chunks again")
    resume.add_argument("--accept-failed", action="store_true", help="close inputs without their failed chunks")
    resume.add_argument(
        "--prune", action="store_true",
        help="remove pictures that are gone, and read again those that have changed; looks at the size and time of "
        "every file",
    )  # fmt: skip
    resume.add_argument(
        "--keep-stale", action="append", default=[], metavar="STAGE",
        help="keep the stored arrays of a stage although its code or options changed; may be repeated",
    )  # fmt: skip
    resume.add_argument(
        "--attempts", type=positive, metavar="N",
        help="tries of a chunk before it is recorded as failed (default: 2; 3 if its worker dies). The death of a "
        "worker counts only if nothing else ran at that time",
    )  # fmt: skip
    parser.add_argument(
        "--debug", action="store_true", help="with --executor inline: raise what a stage raises, for a debugger"
    )


def _plan_arguments(parser: argparse.ArgumentParser) -> None:
    _add_work(parser, is_run=False)
    cameras = parser.add_argument_group("how many cameras (INPUT is one clip of such a camera; needs no --out)")
    cameras.add_argument(
        "--cameras", type=positive, metavar="N", help="say how many cameras this machine keeps up with, and how many "
        "machines N cameras need. The figures are measured with the clip once, and kept"
    )  # fmt: skip
    cameras.add_argument("--fps", type=_rate, metavar="F", help="frames per second to analyse of each camera")
    cameras.add_argument("--measure", action="store_true", help="measure the table again")


def _add_work(parser: argparse.ArgumentParser, is_run: bool) -> None:
    """Add the flags that `run` and `plan` share: the workflow, its inputs, and options of the workflow by flag."""
    parser.add_argument("workflow", metavar="WORKFLOW", help="a shipped workflow by name (faces), or a YAML file")
    parser.add_argument(
        "inputs", metavar="INPUT", nargs="*" if is_run else "+",
        help="video files (pictures with --images), folders, globs, or @list.txt",
    )  # fmt: skip
    parser.add_argument("--out", required=is_run, metavar="STORE", help="the run store (a folder, by custom NAME.zarr)")
    sampling = parser.add_argument_group("what is computed (a change needs another --out, or --fresh)")
    sampling.add_argument(
        "--images", action="store_true", help="inputs are pictures: files, folders, lists, tar files, arrays or tables"
    )
    sampling.add_argument("--every", type=int, metavar="N", help="sample every Nth frame")
    sampling.add_argument("--start", metavar="T", help="from this time on: seconds or H:MM:SS")
    sampling.add_argument("--stop", metavar="T", help="up to this time, exclusive: seconds or H:MM:SS")
    sampling.add_argument(
        "--set", action="append", default=[], metavar="STAGE.OPTION=VALUE", dest="overrides",
        help="change one option of the workflow, for example detect.min_face=40; may be repeated",
    )  # fmt: skip


def _run(options: argparse.Namespace) -> int:
    from pipeline.cluster.execute import execute
    from pipeline.cluster.options import ClusterOptions
    from pipeline.engine.run import RunOptions
    from pipeline.views import summary as summary_view
    from pipeline.views.progress import for_stderr

    if bool(options.inputs) == bool(options.follow):
        said = "both are given" if options.inputs else f"{options.workflow!r} is taken for the workflow, and is alone"
        raise UsageError(
            f"give inputs after the workflow, or --follow FOLDER, and not both: {said}; "
            "reelgraph run WORKFLOW INPUT... --out STORE"
        )
    fields = ClusterOptions.model_fields
    given = {name: value for name, value in vars(options).items() if name in fields and value is not None}
    with for_stderr() as progress, _alone_on_output(options.json):
        summary = execute(
            options.workflow,
            options.inputs,
            options.out,
            overrides=_overrides(options),
            executor=options.executor,
            cluster=ClusterOptions.of(**given),
            options=RunOptions(
                options.fresh,
                options.retry_failed,
                options.accept_failed,
                options.prune,
                tuple(options.keep_stale),
                options.attempts,
                options.together,
            ),
            listener=progress,
            debug=options.debug,
            follow=options.follow,
            settle_seconds=options.settle,
        )
    print_result(options, summary.as_dict(), summary_view.lines(summary))
    return summary.exit_code


@contextlib.contextmanager
def _alone_on_output(is_json: bool) -> Iterator[None]:
    """With --json, send what stages and libraries print to standard error: in this process and in its workers."""
    with contextlib.ExitStack() as stack:
        if is_json:
            sys.stdout.flush()
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            with contextlib.suppress(OSError):  # standard output may be closed
                kept = os.dup(1)
                stack.callback(os.close, kept)
                stack.callback(os.dup2, kept, 1)
                os.dup2(2, 1)
        yield


def _plan(options: argparse.Namespace) -> int:
    if options.cameras:
        return _cameras(options)
    if options.out is None or options.fps or options.measure:
        raise UsageError("plan needs --out STORE; or --cameras N and --fps F for the number of cameras")
    from pipeline.engine.workflow import load_workflow
    from pipeline.views.plan import lines, survey

    workflow = load_workflow(options.workflow, _overrides(options))
    view = survey(workflow, options.inputs, Path(options.out).expanduser())
    print_result(options, view.as_dict(), lines(view))
    if view.unusable:
        return 1 if view.inputs else 2
    return 0


def _cameras(options: argparse.Namespace) -> int:
    from pipeline.views.cameras import as_dict, lines, measured_table

    if options.fps is None or options.every is not None or options.images or len(options.inputs) != 1:
        raise UsageError("--cameras needs --fps F and one clip; leave out --every, --images and further inputs")
    table = measured_table(
        options.workflow, options.inputs[0], options.fps, _overrides(options), options.measure,
        lambda text: print(text, file=sys.stderr, flush=True),
    )  # fmt: skip
    print_result(options, as_dict(table, options.cameras), lines(table, options.cameras))
    return 0


def _overrides(options: argparse.Namespace) -> list[str]:
    """The flags that stand for options of the workflow's source, and --set."""
    # The kind comes first: the options of another kind go with it.
    kind = "images" if options.images else None
    flags = {"kind": kind, "every": options.every, "start": options.start, "stop": options.stop}
    overrides: list[str] = options.overrides
    return [f"source.{name}={json.dumps(value)}" for name, value in flags.items() if value is not None] + overrides


def add_cluster_flags(group: Any) -> None:
    """Add a flag for each field of ClusterOptions."""
    from pipeline.cluster.options import ClusterOptions, flag_of

    for name, field in ClusterOptions.model_fields.items():
        flag = {"dest": name, "help": field.description, "default": None}
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else None
        if field.annotation is bool:
            group.add_argument(flag_of(name), action=argparse.BooleanOptionalAction, **flag)
        elif choices:
            group.add_argument(flag_of(name), choices=choices, **flag)
        else:
            extra = field.json_schema_extra
            metavar = str(extra["metavar"]) if isinstance(extra, dict) else None
            group.add_argument(flag_of(name), metavar=metavar, type=_TYPES.get(metavar or "", str), **flag)


def _size(text: str) -> int:
    """Return bytes of `8GB`, `512MiB`, `2e9`, for `type=`."""
    from pipeline.cluster.options import parse_size

    try:
        return parse_size(text)
    except ValueError as err:
        raise argparse.ArgumentTypeError(str(err)) from err


_rate = number("a number of frames per second between 0 and 1000", lambda value: 0 < value <= 1000)


def _positive_seconds(text: str) -> float:
    from pipeline.cluster.options import LONGEST_SECONDS

    what = f"a number of seconds between 0 and {LONGEST_SECONDS:g}"
    return number(what, lambda value: 0 < value <= LONGEST_SECONDS)(text)


_TYPES = {"N": positive, "SIZE": _size, "SECONDS": _positive_seconds, "PORT": int}
"""Function that reads the value of a flag, by its placeholder in `--help`."""

RUN = Command("run", "run a workflow over inputs, or carry on where it stopped", _run_arguments, _run)
PLAN = Command("plan", "say what a run would do, without doing it", _plan_arguments, _plan)
