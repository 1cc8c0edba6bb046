"""`reelgraph demo`: a clip to try things on."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.commands import Command, print_result


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("clip", metavar="CLIP.mp4")
    parser.add_argument("--seconds", type=float, default=12.0, help="length (default: 12)")


def _demo(options: argparse.Namespace) -> int:
    from pipeline.faces.demo import make_demo_clip

    truth = make_demo_clip(Path(options.clip), seconds=options.seconds)
    print_result(
        options, {"clip": options.clip, "frames": truth.n_frames}, [f"{options.clip}: {truth.n_frames} frames"]
    )
    return 0


COMMAND = Command("demo", "make a short clip of two known faces, with its truth beside it", _arguments, _demo)
