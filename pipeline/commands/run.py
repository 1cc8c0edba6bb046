"""`reelgraph run` and `reelgraph plan`: a workflow over inputs, done or only counted."""

from __future__ import annotations

import argparse
import json
from typing import Any

from pipeline.commands import add_command, positive, print_result

_SMALLEST_MEMORY = 256_000_000
_LONGEST_SECONDS = 1e6
"""Eleven days: timers of the C library overflow far beyond that."""


def add(commands: Any) -> None:
    _add_run(commands)
    _add_plan(commands)


def _add_run(commands: Any) -> None:
    parser = add_command(commands, "run", "run a workflow over inputs, or carry on where it stopped", _run)
    _add_work(parser)
    cluster = parser.add_argument_group("where it runs (does not change what is computed)")
    cluster.add_argument(
        "--executor", choices=("dask", "inline"), default="dask", help="inline: in this process (default: dask)"
    )
    cluster.add_argument(
        "--workers", type=positive, metavar="N", help="CPU workers (default: one per core, as memory allows)"
    )
    cluster.add_argument(
        "--workers-per-gpu", type=positive, default=1, metavar="N", help="workers on each GPU (default: 1)"
    )
    cluster.add_argument(
        "--threads",
        type=positive,
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
        help="what ONNX Runtime runs models on: the models are the same, values differ slightly between devices; "
        "tensorrt first builds engines for minutes, and how much it changes has not been measured (default: auto, "
        "CUDA where there is a GPU)",
    )
    cluster.add_argument(
        "--precision",
        choices=("fp32", "fp16"),
        default="fp32",
        help="fp16: networks compute in half precision, for GPUs; measured on a CPU, where it is no faster, embeddings "
        "of Dlib move by up to 0.0011, of a distance whose threshold is 0.6 (default: fp32)",
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
    parser = add_command(commands, "plan", "say what a run would do, without doing it", _plan)
    _add_work(parser)


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


def _run(options: argparse.Namespace) -> int:
    from pipeline.api import execute
    from pipeline.cluster.options import ClusterOptions
    from pipeline.engine.run import RunOptions
    from pipeline.views import summary as summary_view
    from pipeline.views.progress import for_stderr

    cluster = ClusterOptions(
        workers=options.workers,
        workers_per_gpu=options.workers_per_gpu,
        threads=options.threads,
        gpus=tuple(options.gpus.split(",")) if options.gpus else None,
        device=options.device,
        precision=options.precision,
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
    print_result(options, summary.as_dict(), summary_view.lines(summary))
    return summary.exit_code


def _plan(options: argparse.Namespace) -> int:
    from pipeline.api import plan
    from pipeline.views.plan import lines

    view = plan(options.workflow, options.inputs, options.out, overrides=_overrides(options))
    print_result(options, view.as_dict(), lines(view))
    if view.unusable:
        return 1 if view.inputs else 2
    return 0


def _overrides(options: argparse.Namespace) -> list[str]:
    """The flags that stand for options of the workflow's source, and --set."""
    flags = {"every": options.every, "start": options.start, "stop": options.stop}
    overrides: list[str] = options.overrides
    return [f"source.{name}={json.dumps(value)}" for name, value in flags.items() if value is not None] + overrides


def _size(text: str) -> int:
    """Bytes, of `8GB`, `512MiB`, `2e9`."""
    from dask.utils import parse_bytes

    try:
        size = int(parse_bytes(text))
    except (ValueError, OverflowError):
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
