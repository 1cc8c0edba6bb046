"""`reelgraph init`: a shipped workflow, copied to be edited."""

from __future__ import annotations

import argparse
import shlex

from pipeline.commands import Command, print_result


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a shipped workflow; `reelgraph workflows` lists them")
    parser.add_argument("--to", metavar="FILE", help="where to (default: NAME.yaml in the working folder)")
    parser.add_argument("--force", action="store_true", help="replace files that exist")


def _init(options: argparse.Namespace) -> int:
    from pipeline.engine.shipped import copy_workflow

    files = [str(path) for path in copy_workflow(options.name, options.to, force=options.force)]
    command = f"reelgraph run {shlex.quote(files[0])} clip.mp4 --out clip.zarr"
    lines = [*(f"wrote {file}" for file in files), "run it on a video of yours with:", f"  {command}"]
    print_result(options, {"workflow": files[0], "files": files, "command": command}, lines)
    return 0


COMMAND = Command("init", "copy a shipped workflow, to edit it", _arguments, _init)
