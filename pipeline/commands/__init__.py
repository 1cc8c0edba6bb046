"""Commands: one module each, with its flags and a function that calls the module that does the work.

Everything heavy is imported by the function that needs it, so that `reelgraph --help` stays quick.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UsageError
from pipeline.text import plain

EXIT_CODES = (
    "exit codes: 0 done; 1 failed chunks or unusable inputs among several; 2 wrong use; 75 drained; 130 interrupted; "
    "143 ended by SIGTERM"
)


@dataclass(frozen=True)
class Command:
    """A command of the command line, found in the entry point group `reelgraph.commands`."""

    name: str
    help: str
    """One line for `reelgraph --help`."""
    arguments: Callable[[argparse.ArgumentParser], None]
    """Adds the flags; called only if the command was chosen, so it may import what they need."""
    run: Callable[[argparse.Namespace], int]
    """Does the work on the parsed flags; returns the exit code."""

    def add_to(self, commands: Any, chosen: bool) -> None:
        """Add the command's parser; with its flags, --json among them, if it is the chosen one."""
        parser: argparse.ArgumentParser = commands.add_parser(
            self.name, help=self.help, description=self.help, epilog=EXIT_CODES
        )
        parser.set_defaults(command=self.run)
        if chosen:
            parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
            self.arguments(parser)


def print_result(options: argparse.Namespace, values: Any, lines: list[str]) -> None:
    """With --json the values, as one object; without it the lines. Raises UsageError if they cannot be written."""
    text = json.dumps(values, indent=2, default=str) if options.json else "\n".join(map(plain, lines))
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


def given(arguments: Callable[[argparse.ArgumentParser], None], options: argparse.Namespace) -> list[str]:
    """Return those of the flags that `arguments` adds that the user gave another value than the default."""
    parser = argparse.ArgumentParser(add_help=False)
    arguments(parser)
    defaults = vars(parser.parse_args([]))
    return [f"--{name.replace('_', '-')}" for name, value in defaults.items() if getattr(options, name) != value]


def any_text(text: str) -> str:
    """Return the text, for `type=` of an argument that may be empty. Without it an empty one is refused."""
    return text


def positive(text: str) -> int:
    """A whole number of at least 1, for `type=`."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def number(what: str, allowed: Callable[[float], bool]) -> Callable[[str], float]:
    """Return a parser of the allowed numbers, for `type=`; `what` describes one in its error."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not allowed(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return value

    return parse


positive_number = number("a number above 0", lambda value: 0 < value < math.inf)
