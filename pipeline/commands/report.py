"""`reelgraph report`: a page about one store or several."""

from __future__ import annotations

import argparse

from pipeline.commands import Command, print_result


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("outs", metavar="OUT", nargs="+", help="run stores, done or half done")
    parser.add_argument("--out", metavar="FILE.html", help="the page (default: beside the first store, OUT.html)")
    parser.add_argument("--no-pictures", action="store_true", help="leave pictures out")


def _report(options: argparse.Namespace) -> int:
    from pipeline.views.progress import for_stderr
    from pipeline.views.report import lines, report

    with for_stderr() as progress:
        reported = report(options.outs, options.out, pictures=not options.no_pictures, progress=progress)
    print_result(options, reported.as_dict(), lines(reported))
    return 0


COMMAND = Command(
    "report", "make one HTML file: what was found and when, failures, speed, licences", _arguments, _report
)
