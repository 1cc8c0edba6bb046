"""`reelgraph export`: stored rows as a table, or in another format."""

from __future__ import annotations

import argparse

from pipeline.commands import Command, positive, print_result
from pipeline.errors import UsageError


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("outs", metavar="OUT", nargs="+", help="run stores, done or half done")
    parser.add_argument(
        "--to", required=True, metavar="FILE",
        help="file to write; - is standard output; with {input} in its name each input has a file of its own; with "
        "{part} each of --parts",
    )  # fmt: skip
    parser.add_argument(
        "--axis", metavar="NAME",
        help="what a row is: an axis of the store, or frame for one row per item (default: the store's first axis)",
    )  # fmt: skip
    parser.add_argument(
        "--format", metavar="NAME",
        help="parquet, csv, jsonl, coco, mot, counts; features of pictures: hdf5, npy, faiss; matches: colmap, hloc; "
        "appearances of people: edl, fcpxml, otio, vtt, srt, ffmetadata. Or a class of your own as "
        "package.module:Class (default: by the file's suffix; .json is COCO)",
    )  # fmt: skip
    parser.add_argument(
        "--embeddings", action="store_true", help="with the embeddings (and other long vectors), left out by default"
    )
    parser.add_argument("--all-frames", action="store_true", help="COCO: also list sampled frames without a row")
    parser.add_argument(
        "--images", metavar="FOLDER", help="COCO: write the frames as pictures too, and go on where this stopped"
    )
    parser.add_argument(
        "--start-timecode", metavar="TC",
        help="edl, fcpxml, otio: timecode of the first frame; HH:MM:SS;FF is drop frame "
        "(default: the one in the video file, else 00:00:00:00)",
    )  # fmt: skip
    parser.add_argument(
        "--frame-rate", metavar="RATE", help="edl, fcpxml, otio: timecodes per second (default: the video's frame rate)"
    )
    parser.add_argument(
        "--array", metavar="NAME", help="hdf5, npy, faiss: the array of features (default: the only one of the store)"
    )
    parser.add_argument(
        "--parts", type=positive, metavar="N",
        help="hdf5, npy, faiss: cut the rows into N equal files in order, --to 'feats/{part}.h5'",
    )  # fmt: skip
    parser.add_argument(
        "--camera", metavar="WHICH",
        help="colmap: per-image, per-folder or single: pictures that share a camera (default: per-image)",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")


def _export(options: argparse.Namespace) -> int:
    from pipeline.views.export import STANDARD_OUTPUT, export, lines
    from pipeline.views.progress import for_stderr

    to_stdout = options.to == STANDARD_OUTPUT
    if to_stdout and options.json:
        raise UsageError("--to - and --json both write to standard output; name a file, or leave --json out")
    names = ("axis", "format", "embeddings", "all_frames", "images", "start_timecode", "frame_rate", "array", "parts")
    how = {name: getattr(options, name) for name in (*names, "camera", "force")}
    with for_stderr() as progress:
        exported = export(options.outs, options.to, **how, progress=progress)
    print_result(options, exported.as_dict(), [] if to_stdout else lines(exported))
    return exported.exit_code


COMMAND = Command(
    "export", "write stored rows as a table, or for editors and annotators (EDL, subtitles, COCO)", _arguments, _export
)
