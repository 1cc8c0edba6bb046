"""`reelgraph demo`: a clip to try things on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipeline.commands import add_command, print_result


def add(commands: Any) -> None:
    demo = add_command(commands, "demo", "make a short clip of two known faces, with its truth beside it", _demo)
    demo.add_argument("clip", metavar="CLIP.mp4")
    demo.add_argument("--seconds", type=float, default=12.0, help="length (default: 12)")


def _demo(options: argparse.Namespace) -> int:
    from pipeline.faces.demo import make_demo_clip

    truth = make_demo_clip(Path(options.clip), seconds=options.seconds)
    print_result(
        options, {"clip": options.clip, "frames": truth.n_frames}, [f"{options.clip}: {truth.n_frames} frames"]
    )
    return 0
