"""Faces in `reelgraph annotate`: films and pictures with boxes and names, or with faces blurred."""

from __future__ import annotations

import argparse

from pipeline.commands.annotate import Drawer, print_films, span_of


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--blur", nargs="+", default=[], metavar="WHO",
        help="blur the faces of all, of unknown (all people without a name), or of a person by id or name",
    )  # fmt: skip
    parser.add_argument(
        "--boxes", action=argparse.BooleanOptionalAction, default=None,
        help="draw boxes and names (default: but over faces that are blurred)",
    )  # fmt: skip
    parser.add_argument(
        "--levels", action="store_true", help="write behind a name of a gallery how sure it is: sure or likely"
    )


def _annotate(options: argparse.Namespace) -> int:
    from pipeline.faces.views.annotate import Wanted, annotate
    from pipeline.views.progress import for_stderr

    wanted = Wanted(tuple(options.blur), options.boxes, *span_of(options), options.levels)
    with for_stderr() as progress:
        made = annotate(options.outs, options.input, options.out, wanted, force=options.force, progress=progress)
    return print_films(options, made)


DRAWER = Drawer("faces", "face", _arguments, _annotate, of_films=True)
