"""Commands: one module each, which adds its parser and calls the room that does the work. Everything heavy is imported
by the function that needs it, so that `reelgraph --help` stays quick."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from pipeline.errors import UsageError

EXIT_CODES = (
    "exit codes: 0 done; 1 failed chunks or unusable inputs among several; 2 wrong use; 75 drained; 130 interrupted"
)


def add_command(
    commands: Any, name: str, help_text: str, function: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """A command's parser, with --json; `function` gets the parsed options and returns the exit code."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=help_text, epilog=EXIT_CODES
    )
    parser.set_defaults(command=function)
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    return parser


def print_result(options: argparse.Namespace, values: Any, lines: list[str]) -> None:
    """With --json the values, as one object; without it the lines. Raises UsageError where they cannot be written."""
    text = json.dumps(values, indent=2, default=str) if options.json else "\n".join(lines)
    try:
        print(text, end="\n" if text else "", flush=True)
    except BrokenPipeError:
        _drop_output()  # `reelgraph status ... | head`: the command is done, and its exit code holds
    except OSError as err:
        _drop_output()
        raise UsageError(f"cannot write to standard output: {err.strerror}; free some space, or name a file") from err


def _drop_output() -> None:
    """Throw away what is still to be written, which Python would try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def positive(text: str) -> int:
    """A whole number of at least 1, for `type=`."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
