"""`reelgraph find` for faces: known people, or one without a name, over any number of stores."""

from __future__ import annotations

import argparse
from typing import Any

from pipeline.commands import positive, print_result
from pipeline.commands.find import Search
from pipeline.errors import UsageError
from pipeline.faces.commands import say
from pipeline.text import parse_seconds, plural

WHOM = "whom to find? name one of --gallery DIR and --face FILE"


def _arguments(parser: argparse.ArgumentParser) -> None:
    who = parser.add_argument_group("whom (one of the two)")
    who.add_argument(
        "--gallery", metavar="DIR|FILE.npz",
        help="pictures of known people: a folder for each person, or one picture each named after them",
    )  # fmt: skip
    who.add_argument(
        "--face", action="append", metavar="FILE",
        help="a photo or video of one person; may be repeated: they count together",
    )  # fmt: skip
    how = parser.add_argument_group("what counts as found")
    how.add_argument("--metric", default="cosine", help="cosine, euclidean, euclidean_l2 or angular (default: cosine)")
    how.add_argument(
        "--threshold", type=float, metavar="X",
        help="largest distance (default: per track a limit that falls with the number of people; per face the model's)",
    )  # fmt: skip
    how.add_argument("--model", metavar="NAME", help="refuse stores whose faces are embedded with another model")
    how.add_argument(
        "--per", choices=("track", "face"), default="track",
        help="judge all faces of a track together (default), or each face alone, as DeepFace.find does",
    )  # fmt: skip
    known = parser.add_argument_group("with --gallery")
    known.add_argument(
        "--no-write", action="store_true",
        help="answer only: leave the names and distances in the stores, which reports and films show, as they are",
    )  # fmt: skip
    known.add_argument("--all-faces", action="store_true", help="take every face of a picture, as DeepFace does")
    known.add_argument(
        "--top-k", type=positive, metavar="K", help="nearest people of each face in the table (default: 1)"
    )
    known.add_argument("--table", metavar="FILE", help="a row for each face: .csv, .jsonl or .parquet")
    known.add_argument(
        "--save-gallery", metavar="FILE.npz", help="keep what was embedded, for machines without the pictures"
    )
    asked = parser.add_argument_group("with --face")
    asked.add_argument("--time", metavar="T", help="of a video: the moment with the face, seconds or H:MM:SS")
    asked.add_argument("--box", metavar="X,Y,W,H", help="place of the face in the picture (default: the largest face)")
    asked.add_argument("--shots", metavar="DIR", help="cut the best shots out of the videos, as JPEGs")
    asked.add_argument("--index", metavar="INDEX", help="look up in an index that `reelgraph index` made")
    asked.add_argument(
        "--probes", type=positive, metavar="N", help="lists of the index to look through: more find more"
    )


def _find(options: argparse.Namespace) -> int:
    if (options.gallery is None) == (options.face is None):
        raise UsageError(WHOM)
    if options.top_k and not options.table:
        raise UsageError("--top-k is for the table; name one: --table FILE")
    if options.probes and not options.index:
        raise UsageError("--probes is for an index; name one: --index INDEX")
    of_face = ("time", "box", "top", "shots", "index", "probes")
    of_gallery = ("no_write", "all_faces", "top_k", "table", "save_gallery")
    for name in of_gallery if options.face else of_face:
        if getattr(options, name):
            kind = "--face" if options.face else "--gallery"
            raise UsageError(f"--{name.replace('_', '-')} does not go with {kind}")
    if not options.outs and not options.index:
        raise UsageError("name at least one store: reelgraph find OUT... or, with --face, an index: --index INDEX")
    if options.threshold is not None and not options.threshold > 0:
        raise UsageError(f"--threshold {options.threshold:g} must be more than 0")
    from pipeline.views.progress import NowAndThen

    how = {name: getattr(options, name) for name in ("metric", "threshold", "model", "per")}
    how |= {"looked": NowAndThen("faces looked at"), "note": say}
    return _by_face(options, how) if options.face else _by_gallery(options, how)


def _by_gallery(options: argparse.Namespace, how: dict[str, Any]) -> int:
    from pipeline.faces.people.find import find
    from pipeline.faces.views.found import people_lines
    from pipeline.views.progress import NowAndThen

    how |= {name: getattr(options, name) for name in ("all_faces", "table", "save_gallery")}
    embedded = NowAndThen("pictures of the gallery embedded")
    how |= {"top_k": options.top_k or 1, "write": not options.no_write, "embedded": embedded}
    found = find(options.outs, options.gallery, **how)
    print_result(options, found.as_dict(), people_lines(found))
    return found.exit_code


def _by_face(options: argparse.Namespace, how: dict[str, Any]) -> int:
    from pipeline.faces.people.question import Question, parse_box
    from pipeline.faces.people.search import TOP, search
    from pipeline.faces.people.thumbnails import cut_shots
    from pipeline.faces.views.found import answer_lines

    index = None
    if options.index:
        from pipeline.faces.people.index import FaceIndex

        index = FaceIndex(options.index, options.probes)
    for name in ("time", "box"):
        if getattr(options, name) and len(options.face) > 1:
            raise UsageError(f"--{name} goes with a single --face: here are {len(options.face)}")
    try:
        seconds = parse_seconds(options.time) if options.time else None
        box = parse_box(options.box) if options.box else None
    except ValueError as err:
        raise UsageError(str(err)) from err
    questions = [Question(path, seconds, box) for path in options.face]
    outs = options.outs or (index.outs if index else [])
    answer = search(outs, questions, top=options.top or TOP, index=index, **how)
    values, shown = answer.as_dict(), answer_lines(answer)
    if options.shots:
        files, notes = cut_shots(answer.best, options.shots)
        for text in notes:
            say(text)
        values |= {"shots": [str(path) for path in files], "notes": [*values["notes"], *notes]}
        shown.append(f"{plural(len(files), 'shot')} in {options.shots}")
    print_result(options, values, shown)
    return answer.exit_code


SEARCH = Search("faces", WHOM, ("gallery", "face"), _arguments, _find)
