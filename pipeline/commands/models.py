"""`reelgraph models`: list, fetch, verify."""

from __future__ import annotations

import argparse
import sys

from pipeline.commands import Command, print_result
from pipeline.errors import UsageError
from pipeline.text import plain


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List every model with its licence, size and whether its weights are here; `fetch` downloads weights to where "
        "DeepFace looks for them, `verify` checks those that are here."
    )
    parser.usage = (
        "reelgraph models [NAME|KIND ...] [--json]\n"
        "       reelgraph models fetch (--all | NAME|KIND|WORKFLOW ...) [--force] [--json]\n"
        "       reelgraph models verify [NAME|KIND|WORKFLOW ...] [--json]"
    )
    parser.add_argument(
        "words", metavar="NAME", nargs="*",
        help="models, kinds of them (detectors, recognisers, attributes, spoofing), or workflows by name or file; "
        "`fetch` or `verify` before them says what to do",
    )  # fmt: skip
    parser.add_argument("--all", action="store_true", help="fetch: every model")
    parser.add_argument("--force", action="store_true", help="fetch: download again what is here")


def _models(options: argparse.Namespace) -> int:
    action = options.words[0] if options.words and options.words[0] in ("fetch", "verify") else "list"
    if action != "fetch" and (options.all or options.force):
        raise UsageError("--all and --force are for `reelgraph models fetch`")
    words = options.words if action == "list" else options.words[1:]
    return {"list": _models_list, "fetch": _models_fetch, "verify": _models_verify}[action](options, words)


def _models_list(options: argparse.Namespace, words: list[str]) -> int:
    from pipeline.models.catalogue import cards
    from pipeline.views import models as view

    described = view.describe(view.select(words))
    if options.json:
        print_result(options, described, [])
    else:
        view.show(described, in_full=bool(words) and all(word in cards() for word in words))
    return 0


def _models_fetch(options: argparse.Namespace, words: list[str]) -> int:
    from pipeline.views import models as view

    if bool(words) == options.all:
        raise UsageError("name the models to fetch, or a workflow file, or --all; `reelgraph models` lists them")
    fetched, exit_code = view.fetch(view.select(words), force=options.force)
    print_result(options, fetched, view.fetched_lines(fetched))
    for result in fetched["models"]:
        if result["error"]:
            print(f"reelgraph: {plain(result['error'])}", file=sys.stderr)
    return exit_code


def _models_verify(options: argparse.Namespace, words: list[str]) -> int:
    from pipeline.views import models as view

    verified, exit_code = view.verify(view.select(words), named=bool(words))
    print_result(options, verified, view.verified_lines(verified))
    return exit_code


COMMAND = Command("models", "list the models there are, download their weights, check them", _arguments, _models)
