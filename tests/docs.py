"""Code of the documentation: finds the blocks of a page, and does what a reader would do with each, in order.

| block                                       | what is done                                                          |
|---------------------------------------------|-----------------------------------------------------------------------|
| first line `# NAME.py` (.yaml, .toml)       | written to that file                                                  |
| `sh`                                        | each line is run; `# exit code N` at its end says that it must fail so |
| `python` without a file's name              | run as a program                                                      |
| `text` after one that was run               | each line must be part of its output                                  |
| `pip install --editable .`                  | the entry points of pyproject.toml are made known, without an install |
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import shlex
import subprocess
import sys
import tomllib
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.cli import main
from pipeline.engine import finding
from pipeline.engine.steps import unload_stages

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w./-]+\.(?:py|yaml|toml))\n")
EXIT_CODE = re.compile(r"\s+# exit code (\d+)$")
INSTALL = ["pip", "install", "--editable", "."]


class Block(NamedTuple):
    language: str
    text: str
    line: int
    """Line of the page where the code begins, from 1."""

    @property
    def file(self) -> str | None:
        """Name of the file that the block is to be written to; None if it is run."""
        match = FILE.match(self.text)
        return match[1] if match else None


def blocks(page: Path) -> Iterator[Block]:
    """Yield the code blocks of a page in order."""
    text = page.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        yield Block(match[1], match[2], text.count("\n", 0, match.start()) + 2)


class Reader:
    """Somebody who follows a page in a folder of their own.

    `reelgraph` commands and programs run in this process, each with fresh modules of the folder: starting Python and
    importing what a run needs takes two seconds, and pages have dozens of commands. Other commands are processes.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it would hide a change within a second

    def follow(self, page: Path) -> int:
        """Do what a page says; return how many commands and programs were run."""
        printed, n_run = "", 0
        for block in blocks(page):
            where = f"{page.name}, line {block.line}"
            if block.file is not None:
                (self.folder / block.file).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / block.file).write_text(block.text, encoding="utf-8")
            elif block.language == "text":
                for line in block.text.splitlines():
                    assert _plain(line) in _plain(printed), f"{where}: {line!r} is not in the output:\n{printed}"
            elif block.language in ("sh", "python"):
                printed = ""
                for command, expected in _commands(block):
                    code, text = self.run(command)
                    assert code == expected, f"{where}: {' '.join(command)}\nexit code {code}\n{text}"
                    printed += text
                    n_run += 1
        return n_run

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a command; return its exit code and what it printed."""
        if list(command) == INSTALL:
            self.install()
            return 0, ""
        if command[0] not in ("reelgraph", "python"):
            done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)
            return done.returncode, done.stdout + done.stderr
        printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        self.forget()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                code = _start(*command)
            except SystemExit as end:
                code = int(end.code or 0)
            except Exception:  # as Python ends with a program that raises
                traceback.print_exc()
                code = 1
        self.forget()
        return code, printed.buffer.getvalue().decode()  # type: ignore[attr-defined]  # a BytesIO

    def forget(self) -> None:
        """Forget the modules of the folder, and what was made of them, as a new process would not know them."""
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(str(self.folder)):
                del sys.modules[name]
        importlib.invalidate_caches()
        unload_stages()

    def install(self) -> None:
        """Make the entry points of the folder's pyproject.toml known, as an editable install would."""
        project = tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        name = project["name"].replace("-", "_")
        made = self.folder / f"{name}-{project['version']}.dist-info"
        made.mkdir()
        head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        (made / "METADATA").write_text(head)
        groups = [
            "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in points.items())])
            for group, points in project["entry-points"].items()
        ]
        (made / "entry_points.txt").write_text("\n\n".join(groups) + "\n")
        self._monkeypatch.syspath_prepend(self.folder)
        finding.claims.cache_clear()

    def leave(self) -> None:
        """Forget the folder."""
        self.forget()
        finding.claims.cache_clear()


def _start(program: str, *words: str) -> int:
    if program == "reelgraph":
        return main(words)
    (text,) = words[1:]
    before = [*sys.path]
    sys.path.insert(0, "")  # as `python -c` does
    try:
        exec(compile(text, "<page>", "exec"), {"__name__": "__main__"})
    finally:
        sys.path[:] = before
    return 0


def _commands(block: Block) -> Iterator[tuple[list[str], int]]:
    if block.language == "python":
        yield ["python", "-c", block.text], 0
        return
    for line in block.text.splitlines():
        match = EXIT_CODE.search(line)
        yield shlex.split(line[: match.start()] if match else line), int(match[1]) if match else 0


def _plain(text: str) -> str:
    return " ".join(text.split())
