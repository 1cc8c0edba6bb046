"""`reelgraph find`: known people, or somebody never named, over any number of stores."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from pipeline.commands import add_command, positive, print_result


def add(commands: Any) -> None:
    find = add_command(commands, "find", "find known people, or one person by a picture, in finished stores", _find)
    find.add_argument("outs", metavar="OUT", nargs="*", help="run stores, complete or not")
    who = find.add_argument_group("whom (one of the two)")
    who.add_argument(
        "--gallery",
        metavar="DIR|FILE.npz",
        help="pictures of known people: a folder for each person, or one picture each named after them",
    )
    who.add_argument(
        "--face",
        action="append",
        metavar="FILE",
        help="a photo or video of one person; may be repeated: the nearest counts",
    )
    how = find.add_argument_group("what counts as found")
    how.add_argument("--metric", default="cosine", help="cosine, euclidean, euclidean_l2 or angular (default: cosine)")
    how.add_argument("--threshold", type=float, metavar="X", help="largest distance (default: the model's own)")
    how.add_argument("--model", metavar="NAME", help="refuse stores whose faces are embedded with another model")
    known = find.add_argument_group("with --gallery")
    known.add_argument("--all-faces", action="store_true", help="take every face of a picture, as DeepFace does")
    known.add_argument(
        "--top-k", type=positive, default=1, metavar="K", help="nearest people of each face in the table"
    )
    known.add_argument("--table", metavar="FILE", help="a row for each face: .csv, .jsonl or .parquet")
    known.add_argument(
        "--save-gallery", metavar="FILE.npz", help="keep what was embedded, for machines without the pictures"
    )


def _find(options: argparse.Namespace) -> int:
    from pipeline.errors import UsageError

    if (options.gallery is None) == (options.face is None):
        raise UsageError("whom to find? name one of --gallery DIR and --face FILE")
    if not options.outs:
        raise UsageError("name at least one store")
    return _by_gallery(options)


def _by_gallery(options: argparse.Namespace) -> int:
    from pipeline.people.find import find
    from pipeline.views.found import lines

    found = find(
        options.outs,
        options.gallery,
        metric=options.metric,
        threshold=options.threshold,
        top_k=options.top_k,
        all_faces=options.all_faces,
        model=options.model,
        table=options.table,
        save_gallery=options.save_gallery,
        progress=lambda done, total: _say(f"gallery: {done} of {total} pictures"),
        note=_say,
    )
    print_result(options, found.as_dict(), lines(found))
    return found.exit_code


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
