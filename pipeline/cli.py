"""The command line: parses, calls, prints. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pipeline
from pipeline.errors import ReelgraphError, UsageError

EXIT_INTERRUPTED = 130
_SMALLEST_MEMORY = 256_000_000
_LONGEST_SECONDS = 1e6
"""Eleven days: timers of the C library overflow far beyond that."""
DESCRIPTION = (
    "Face analysis for whole archives of video: Dask tasks over chunks of frames, into a Zarr store that resumes."
)
EXIT_CODES = (
    "exit codes: 0 done; 1 failed chunks or unusable inputs among several; 2 wrong use; 75 drained; 130 interrupted"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(words)
    try:
        return int(options.command(options))
    except ReelgraphError as err:
        print(f"reelgraph: {err}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        print(
            f"\ninterrupted; what was committed is kept. This continues:\n  {shlex.join(['reelgraph', *words])}",
            file=sys.stderr,
        )
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED)  # threads in native code would keep the interpreter for as long as they like
    except BrokenPipeError:
        return 0  # `reelgraph status ... | head`


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everywhere, where argparse would print a screen of usage first."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"reelgraph: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="reelgraph", description=DESCRIPTION, epilog=EXIT_CODES)
    parser.add_argument("--version", action="version", version=f"reelgraph {pipeline.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_run(commands)
    _add_plan(commands)
    status = _command(commands, "status", "say what a store holds: inputs, chunks done and failed", _status)
    status.add_argument("out", metavar="OUT", help="the run store")
    workflows = _command(commands, "workflows", "check a workflow file and explain its options", _workflows)
    workflows.add_argument(
        "workflow", metavar="WORKFLOW", nargs="?", help="a YAML file; without it, list the stages there are"
    )
    _add_models(commands)
    doctor = _command(commands, "doctor", "say what this machine offers, and what to do about what is missing", _doctor)
    doctor.add_argument("--out", default="runs", metavar="DIR", help="where output would be written (default: runs)")
    demo = _command(commands, "demo", "make a short clip of two known faces, with its truth beside it", _demo)
    demo.add_argument("clip", metavar="CLIP.mp4")
    demo.add_argument("--seconds", type=float, default=12.0, help="length (default: 12)")
    return parser


def _command(
    commands: Any, name: str, help_text: str, function: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=help_text, epilog=EXIT_CODES
    )
    parser.set_defaults(command=function)
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    return parser


def _add_work(parser: argparse.ArgumentParser) -> None:
    """What `run` and `plan` share: the workflow, its inputs, and options of the workflow by flag."""
    parser.add_argument("workflow", metavar="WORKFLOW", help="a YAML file, for example workflows/faces.yaml")
    parser.add_argument("inputs", metavar="INPUT", nargs="+", help="video files, folders, globs, or @list.txt")
    parser.add_argument("--out", required=True, metavar="STORE", help="the run store (a folder, by custom NAME.zarr)")
    sampling = parser.add_argument_group("what is computed (a change needs another --out, or --fresh)")
    sampling.add_argument("--every", type=int, metavar="N", help="sample every Nth frame")
    sampling.add_argument("--start", metavar="T", help="from this time on: seconds or H:MM:SS")
    sampling.add_argument("--stop", metavar="T", help="up to this time, exclusive: seconds or H:MM:SS")
    sampling.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="STAGE.OPTION=VALUE",
        dest="overrides",
        help="change one option of the workflow, for example detect.min_face=40; may be repeated",
    )


def _add_run(commands: Any) -> None:
    parser = _command(commands, "run", "run a workflow over inputs, or carry on where it stopped", _run)
    _add_work(parser)
    cluster = parser.add_argument_group("where it runs (does not change what is computed)")
    cluster.add_argument(
        "--executor", choices=("dask", "inline"), default="dask", help="inline: in this process (default: dask)"
    )
    cluster.add_argument(
        "--workers", type=_positive, metavar="N", help="CPU workers (default: one per core, as memory allows)"
    )
    cluster.add_argument(
        "--workers-per-gpu", type=_positive, default=1, metavar="N", help="workers on each GPU (default: 1)"
    )
    cluster.add_argument(
        "--threads",
        type=_positive,
        metavar="N",
        help="slots per worker: one for models, the rest decode and write (default: 1, on a GPU 3)",
    )
    cluster.add_argument(
        "--worker-memory",
        type=_size,
        metavar="SIZE",
        help="memory of a worker, for example 8GB; one that comes to hold three quarters of it is restarted between "
        "chunks (default: an equal share of the machine's)",
    )
    cluster.add_argument(
        "--gpu-memory",
        type=_size,
        metavar="SIZE",
        help="GPU memory of a worker's models, for example 6GB (default: an equal share of the card, less 2 GiB)",
    )
    cluster.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "tensorrt"),
        default="auto",
        help="what ONNX Runtime runs models on: the models are the same, values differ slightly between devices, most "
        "with tensorrt, which first builds engines for minutes (default: auto, CUDA where there is a GPU)",
    )
    cluster.add_argument("--gpus", metavar="0,1", help="GPUs to use (default: all that are visible)")
    cluster.add_argument(
        "--scheduler",
        metavar="FILE|ADDRESS",
        help="a running Dask cluster: scheduler file, tcp://host:port or tls://host:port",
    )
    cluster.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where scheduler and dashboard listen (default: 127.0.0.1; whoever reaches them runs code as you)",
    )
    cluster.add_argument(
        "--dashboard-port",
        type=int,
        default=8787,
        metavar="PORT",
        help="default: 8787, or a free one where that is taken",
    )
    cluster.add_argument(
        "--chunk-timeout",
        type=_positive_seconds,
        default=600.0,
        metavar="SECONDS",
        help="a step that takes longer ends its worker (default: 600)",
    )
    resume = parser.add_argument_group("carrying on")
    resume.add_argument("--fresh", action="store_true", help="delete the store's content first")
    resume.add_argument("--retry-failed", action="store_true", help="take failed chunks again")
    resume.add_argument("--accept-failed", action="store_true", help="close inputs without their failed chunks")


def _add_plan(commands: Any) -> None:
    parser = _command(commands, "plan", "say what a run would do, without doing it", _plan)
    _add_work(parser)


def _add_models(commands: Any) -> None:
    parser = _command(commands, "models", "list the models there are, download their weights, check them", _models)
    parser.description = (
        "List every model with its licence, size and whether its weights are here; `fetch` downloads weights to where "
        "DeepFace looks for them, `verify` checks those that are here."
    )
    parser.usage = (
        "reelgraph models [NAME|KIND ...] [--json]\n"
        "       reelgraph models fetch (--all | NAME|KIND|WORKFLOW.yaml ...) [--force] [--json]\n"
        "       reelgraph models verify [NAME|KIND|WORKFLOW.yaml ...] [--json]"
    )
    parser.add_argument(
        "words",
        metavar="NAME",
        nargs="*",
        help="models, kinds of them (detectors, recognisers, attributes, spoofing), or workflow files; "
        "`fetch` or `verify` before them says what to do",
    )
    parser.add_argument("--all", action="store_true", help="fetch: every model")
    parser.add_argument("--force", action="store_true", help="fetch: download again what is here")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _size(text: str) -> int:
    """Bytes, of `8GB`, `512MiB`, `2e9`."""
    from dask.utils import parse_bytes

    try:
        size = int(parse_bytes(text))
    except ValueError:
        size = 0
    if size < _SMALLEST_MEMORY:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size of at least 256MB, such as 8GB")
    return size


def _positive_seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= _LONGEST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds between 0 and {_LONGEST_SECONDS:g}")
    return value


def _overrides(options: argparse.Namespace) -> list[str]:
    """The flags that stand for options of the workflow's source, and --set."""
    flags = {"every": options.every, "start": options.start, "stop": options.stop}
    overrides: list[str] = options.overrides
    return [f"source.{name}={json.dumps(value)}" for name, value in flags.items() if value is not None] + overrides


def _print(options: argparse.Namespace, values: Any, lines: list[str]) -> None:
    if options.json:
        print(json.dumps(values, indent=2, default=str))
    elif lines:
        print("\n".join(lines))


def _run(options: argparse.Namespace) -> int:
    from pipeline.api import execute
    from pipeline.cluster import ClusterOptions
    from pipeline.runner import RunOptions
    from pipeline.views import summary as summary_view
    from pipeline.views.progress import for_stderr

    cluster = ClusterOptions(
        workers=options.workers,
        workers_per_gpu=options.workers_per_gpu,
        threads=options.threads,
        gpus=tuple(options.gpus.split(",")) if options.gpus else None,
        device=options.device,
        worker_memory_bytes=options.worker_memory,
        gpu_memory_bytes=options.gpu_memory,
        scheduler=options.scheduler,
        host=options.host,
        dashboard_port=options.dashboard_port,
        chunk_timeout_seconds=options.chunk_timeout,
    )
    with for_stderr() as progress:
        summary = execute(
            options.workflow,
            options.inputs,
            options.out,
            overrides=_overrides(options),
            executor=options.executor,
            cluster=cluster,
            options=RunOptions(options.fresh, options.retry_failed, options.accept_failed),
            progress=progress,
        )
    _print(options, summary.as_dict(), summary_view.lines(summary))
    return summary.exit_code


def _plan(options: argparse.Namespace) -> int:
    from pipeline.api import plan
    from pipeline.views.plan import lines

    view = plan(options.workflow, options.inputs, options.out, overrides=_overrides(options))
    _print(options, view.as_dict(), lines(view))
    if view.unusable:
        return 1 if view.inputs else 2
    return 0


def _status(options: argparse.Namespace) -> int:
    from pipeline.views.status import describe, lines

    status = describe(Path(options.out))
    _print(options, status, lines(status))
    return 0


def _workflows(options: argparse.Namespace) -> int:
    from pipeline.views.workflows import describe, describe_stages, lines

    described = describe(options.workflow) if options.workflow else describe_stages()
    _print(options, described, lines(described))
    return 0


def _models(options: argparse.Namespace) -> int:
    action = options.words[0] if options.words and options.words[0] in ("fetch", "verify") else "list"
    if action != "fetch" and (options.all or options.force):
        raise UsageError("--all and --force are for `reelgraph models fetch`")
    words = options.words if action == "list" else options.words[1:]
    return {"list": _models_list, "fetch": _models_fetch, "verify": _models_verify}[action](options, words)


def _models_list(options: argparse.Namespace, words: list[str]) -> int:
    from pipeline.models.zoo import CARDS
    from pipeline.views import models as view

    described = view.describe(view.select(words))
    if options.json:
        _print(options, described, [])
    else:
        view.show(described, in_full=bool(words) and all(word in CARDS for word in words))
    return 0


def _models_fetch(options: argparse.Namespace, words: list[str]) -> int:
    from pipeline.views import models as view

    if bool(words) == options.all:
        raise UsageError("name the models to fetch, or a workflow file, or --all; `reelgraph models` lists them")
    fetched, exit_code = view.fetch(view.select(words), force=options.force)
    _print(options, fetched, view.fetched_lines(fetched))
    for result in fetched["models"]:
        if result["error"]:
            print(f"reelgraph: {result['error']}", file=sys.stderr)
    return exit_code


def _models_verify(options: argparse.Namespace, words: list[str]) -> int:
    from pipeline.views import models as view

    verified, exit_code = view.verify(view.select(words), named=bool(words))
    _print(options, verified, view.verified_lines(verified))
    return exit_code


def _doctor(options: argparse.Namespace) -> int:
    from pipeline.doctor import examine, lines

    findings = examine(Path(options.out))
    _print(options, [vars(finding) for finding in findings], lines(findings))
    return 0 if all(finding.ok or not finding.needed for finding in findings) else 1


def _demo(options: argparse.Namespace) -> int:
    from pipeline.demo import make_demo_clip

    truth = make_demo_clip(Path(options.clip), seconds=options.seconds)
    _print(options, {"clip": options.clip, "frames": truth.n_frames}, [f"{options.clip}: {truth.n_frames} frames"])
    return 0
