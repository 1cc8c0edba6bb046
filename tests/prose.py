"""Check the English of docstrings and messages: `python tests/prose.py [--list] [PATH...]`, part of `make check`.

The rules, in short: a docstring is a sentence or a noun phrase that stands alone; `if` for conditions and `where` for
places; plain words; an actor that is named; at most 25 words a sentence. Text of the first months breaks them, so the
limits in pyproject.toml, [tool.reelgraph.prose], hold what is left of it. Those numbers may only fall.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

ROOT = Path(__file__).parent.parent
MOST_WORDS = 25

Kind = Literal["function", "class", "module", "field", "message"]


class Text(NamedTuple):
    """A docstring or a message of a source file."""

    line: int
    """Line of the file where the text begins, from 1."""
    kind: Kind
    words: str
    """The text; a value that is filled in later (`{...}` of an f-string) stands as X."""


class Hit(NamedTuple):
    line: int
    rule: str
    """Key of RULES, `opener`, `plural` or `long`."""
    excerpt: str


# After one of these words, or before a verb of place, `where` means a place. Anywhere else it is taken for `if`.
_PLACES = (
    *("folder", "folders", "directory", "file", "place", "places", "position", "positions", "point", "points"),
    *("pixel", "pixels", "side", "spot", "offset", "is", "are", "to", "from", "of", "know", "knows", "known"),
    *("say", "says", "see", "show", "shows", "find", "finds", "print", "prints"),
)

_PLACED = r"(it|they|\w+|the \w+) (lies?|lay|stands?|stood|goes|go|stopped|begins?|ends?)\b"

RULES = {
    "where": "".join(rf"(?<!\b{word} )" for word in _PLACES) + rf"(?<!`)\bwhere\b(?!`|,| {_PLACED})",
    "nobody": r"\b(somebody|nobody|someone|no one|whoever|what comes|is had|are had)\b",
    "is no": r"(?<!there )\b(is|are|was|were|be) (no\b(?! (more|less|\w+er)\b)|none\b)",
    "word": r"\b(heed\w*|mend(s|ed|ing)?|anew|afresh|culprits?|dear\w*|be had|tells?|told|so many|eats?"
    r"|(?<!head-)room|doors?)\b",
}
_PATTERNS = {rule: re.compile(pattern, re.IGNORECASE if rule != "is no" else 0) for rule, pattern in RULES.items()}

_OPENER = re.compile(
    r"(Of|What|Whose|Whether|Where|How|That|Which|Who|When|Why|And|Or|But|As|So|Not|Also|Likewise|The same)\b"
)
# A field may open with its dtype or with code, `int64 (n,): ...`; other small letters hang on the line above.
_DTYPE = re.compile(r"(float|u?int|bool|str|bytes|object)\d*\b|\w+[\[(._=/*]|\w, |\w+_\w+")
# A sentence ends with its stop, its paragraph or the item of a list; the rows of a table are not sentences.
_SENTENCE_END = re.compile(r"(?<=[.!?])[)\"']?\s+(?=[^a-z])|\n\s*\n|\n\s*[-*] |^\s*\|.*$", re.MULTILINE)


def texts(source: str) -> Iterator[Text]:
    """Yield every docstring (also of fields) and every message of a Python file, in no particular order."""
    tree = ast.parse(source)
    docstrings: set[int] = set()
    for node in ast.walk(tree):
        for text, constant in _docstrings(node):
            docstrings.add(id(constant))
            yield text
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if id(node) in docstrings or id(node) in inner:
            continue
        words = _words(node)
        if words is not None and len(words.split()) > 2:
            yield Text(node.lineno, "message", words)  # type: ignore[attr-defined]


def _docstrings(node: ast.AST) -> Iterator[tuple[Text, ast.expr]]:
    kind: Kind
    if isinstance(node, ast.Module):
        kind = "module"
    elif isinstance(node, ast.ClassDef):
        kind = "class"
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        kind = "function"
    else:
        return
    for before, statement in zip([None, *node.body], node.body, strict=False):
        value = statement.value if isinstance(statement, ast.Expr) else None
        if not (isinstance(value, ast.Constant) and isinstance(value.value, str)):
            continue
        if before is None:
            yield Text(value.lineno, kind, value.value), value
        elif isinstance(before, ast.Assign | ast.AnnAssign):
            yield Text(value.lineno, "field", value.value), value


def _words(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "X" for part in node.values)  # type: ignore[misc]
    return None


def plurals(source: str) -> Iterator[Hit]:
    """Yield the places that make a plural of their own, by adding "s" to a word: `text.plural` does that."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.BinOp):
            parts = [node.left, node.right]
        elif isinstance(node, ast.IfExp):
            parts = [node.body, node.orelse]
        else:
            continue
        if any(isinstance(part, ast.Constant) and part.value in ("s", "es") for part in parts):
            yield Hit(node.lineno, "plural", ast.unparse(node))


def hits_of(text: Text) -> Iterator[Hit]:
    """Yield what breaks a rule in one text: each word of RULES, the opener of a docstring, each long sentence."""
    plain = " ".join(text.words.split())
    if text.kind != "message" and _opens_badly(plain, text.kind):
        yield Hit(text.line, "opener", plain[:60])
    for rule, pattern in _PATTERNS.items():
        for match in pattern.finditer(plain):
            yield Hit(text.line, rule, plain[max(0, match.start() - 20) : match.end() + 30])
    for sentence in _SENTENCE_END.split(text.words):
        count = sum(any(letter.isalnum() for letter in word) for word in sentence.split())
        if count > MOST_WORDS:
            yield Hit(text.line, "long", f"{count} words: {' '.join(sentence.split())[:60]}")


def _opens_badly(plain: str, kind: Kind) -> bool:
    if _OPENER.match(plain):
        return True
    if not plain[:1].islower() or plain.startswith("reelgraph"):
        return False
    return kind == "function" or not _DTYPE.match(plain)


def check(source: str) -> list[Hit]:
    """Return all hits of a Python file, by line."""
    hits = [hit for text in texts(source) for hit in hits_of(text)]
    return sorted([*hits, *plurals(source)])


def main(argv: Sequence[str] | None = None) -> int:
    """Print the counts per rule over the given files and folders (pipeline/); return 1 if they exceed their limits."""
    parser = argparse.ArgumentParser(description="Check the English of docstrings and messages.")
    parser.add_argument("paths", nargs="*", type=Path, help="files and folders (default: pipeline/, with its limits)")
    parser.add_argument("--list", action="store_true", help="print each hit")
    args = parser.parse_args(argv)
    counts: Counter[str] = Counter()
    for path in args.paths or [ROOT / "pipeline"]:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            for hit in check(file.read_text(encoding="utf-8")):
                counts[hit.rule] += 1
                if args.list:
                    print(f"{file}:{hit.line}: {hit.rule}: {hit.excerpt}")
    print("prose: " + ", ".join(f"{rule} {counts[rule]}" for rule in ("opener", *RULES, "plural", "long")))
    found = {"words": counts.total() - counts["long"], "long": counts["long"]}
    if args.paths:
        return 0
    limits = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["reelgraph"]["prose"]
    for name, count in found.items():
        if count > limits[name]:
            print(f"prose: {name} {count} exceeds its limit, {limits[name]}; see `python tests/prose.py --list`")
        elif count < limits[name]:
            print(f"prose: {name} fell to {count}; lower its limit in pyproject.toml from {limits[name]}")
    return int(any(count > limits[name] for name, count in found.items()))


if __name__ == "__main__":
    sys.exit(main())
