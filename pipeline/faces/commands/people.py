"""`reelgraph people`: who is in stores, and what people decide about it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.commands import Command, any_text, number, positive, print_result
from pipeline.errors import UsageError
from pipeline.faces.commands import say
from pipeline.store.nodes import located
from pipeline.text import plural

if TYPE_CHECKING:
    from pipeline.faces.people.registry import Registry

Changed = tuple[dict[str, Any], list[str]]
"""The result of a change: values of --json, and lines."""
USAGE = """reelgraph people OUT...
       reelgraph people list
       reelgraph people name WHO NAME
       reelgraph people merge WHO WHO...
       reelgraph people split WHO [INPUT:TRACK...]
       reelgraph people undo [OUT...]"""


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{USAGE}\n       [options]"
    parser.add_argument(
        "words", nargs="+", type=any_text, metavar="OUT",
        help="run stores; or list, undo, or name, merge, split with ids or names (a store of such a name is ./name)",
    )  # fmt: skip
    parser.add_argument(
        "--registry", type=Path, metavar="FILE",
        help="the registry of people (default: that of the stores, else people.json beside the first; without stores: "
        "people.json or runs/people.json from here)",
    )  # fmt: skip
    parser.add_argument(
        "--threshold", type=number("a distance above 0", lambda value: 0 < value < 1000), metavar="D",
        help="average distance up to which tracks are one person. Default, in thresholds of the model: "
        "0.975, less among many people; 0.85 for tracks with many looks",
    )  # fmt: skip
    parser.add_argument(
        "--min-faces", type=positive, metavar="N",
        help="sure faces that a person needs (default: 3, or 2 if the detector was very sure of one)",
    )  # fmt: skip
    parser.add_argument(
        "--again", action="store_true", help="take inputs again that have their people; names, merges and splits stay"
    )
    parser.add_argument("--no-thumbnails", action="store_true", help="decode no best shots, and show none")
    parser.add_argument(
        "--sheet", type=_sheet, metavar="FILE",
        help="write a contact sheet (.png, .jpg): each person's best shot, number, name and time (default: no file). "
        "The list itself shows the pictures in kitty, Ghostty, iTerm2, WezTerm, rio and mintty",
    )  # fmt: skip
    parser.add_argument(
        "--parts", type=_parts, default=2, metavar="N", help="split without tracks: number of parts (default 2)"
    )
    parser.add_argument("--dry-run", action="store_true", help="split, undo: say what would be, and change nothing")
    parser.add_argument("--force", action="store_true", help="merge people who were seen side by side in one frame")


def _parts(text: str) -> int:
    if positive(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} parts do not split a person; take at least 2")
    return int(text)


def _sheet(text: str) -> Path:
    if not text.lower().endswith((".png", ".jpg", ".jpeg")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a picture's name; let it end with .png or .jpg")
    return Path(text)


def _people(options: argparse.Namespace) -> int:
    word, *words = options.words
    if options.force and word != "merge":
        raise UsageError(f"--force has no effect on people {word}; leave it out, or use it with merge")
    if options.dry_run and word not in ("split", "undo"):
        raise UsageError(f"--dry-run has no effect on people {word}; leave it out, or use it with split or undo")
    if options.sheet and word in ("list", "undo", *CHANGES):
        raise UsageError(f"--sheet has no effect on people {word}; leave it out, or use it with stores")
    if word == "list":
        return _list(options, words)
    if word == "undo":
        return _undo(options, words)
    if word in CHANGES:
        from pipeline.faces.people.registry import Registry, edit

        change, takes, usage = CHANGES[word]
        if not takes(len(words)):
            raise UsageError(usage)
        path = _registry(options)
        with edit(path):
            registry = Registry.load(path)
            values, lines = change(registry, words, options)
            if not values.get("dry_run"):
                registry.save()
        print_result(options, {"registry": str(path), **values}, [*lines, f"registry {path}"])
        return 0
    from pipeline.faces.people.gather import GatherOptions, gather
    from pipeline.faces.views.people import MOST_PICTURED, as_json, people_of, print_table
    from pipeline.faces.views.sheet import MOST_ON_SHEET, pictures_of, write_sheet
    from pipeline.views.terminal import means_of_terminal

    wanted = GatherOptions(options.threshold, options.min_faces, options.again, not options.no_thumbnails)
    gathered = gather([Path(word) for word in options.words], options.registry, wanted, say)
    people = people_of(gathered.inputs, gathered.registry)
    by = None if options.json or options.no_thumbnails or not sys.stdout.isatty() else means_of_terminal()
    most = MOST_ON_SHEET if options.sheet else MOST_PICTURED if by else 0
    pictures = pictures_of(people[:most], gathered.inputs)
    sheet = write_sheet(people, pictures, options.sheet) if options.sheet else ""
    if options.json:
        written = {"sheet": str(options.sheet)} if sheet else {}
        print_result(options, as_json(gathered, people) | written, [])
    else:
        print_table(gathered, people, pictures, by, sheet)
    return 0


def _list(options: argparse.Namespace, words: list[str]) -> int:
    from pipeline.faces.people.registry import Registry
    from pipeline.faces.views.people import registry_lines, registry_rows

    if words:
        raise UsageError(f"people list takes no {words[0]!r}; for the people of stores: reelgraph people OUT...")
    registry = Registry.load(_registry(options))
    values = {"registry": str(registry.path), "model": registry.model, "people": registry_rows(registry)}
    print_result(options, values, registry_lines(registry))
    return 0


def _undo(options: argparse.Namespace, words: list[str]) -> int:
    from pipeline.faces.people.gather import registry_path
    from pipeline.faces.people.registry import Registry, edit
    from pipeline.faces.people.undo import last_change, undo
    from pipeline.store.read import open as open_store

    path = registry_path([open_store(word) for word in words], options.registry)[0] if words else _registry(options)
    registry = Registry.load(path)
    notes: list[str] = []
    change = last_change(registry)  # also with --dry-run, and before the lock makes a file
    if not options.dry_run:
        with edit(path):
            registry = Registry.load(path)
            change, notes = undo(registry)
            registry.save()
    values = {
        "registry": str(path), "change": change.kind, "undone": change.text, "at": change.at,
        "dry_run": options.dry_run, "left": len(registry.history) - options.dry_run, "notes": notes,
    }  # fmt: skip
    lines = [f"{'would undo' if options.dry_run else 'undid'}: {change.text}", *notes, f"registry {path}"]
    print_result(options, values, lines)
    return 0


def _name(registry: Registry, words: list[str], options: argparse.Namespace) -> Changed:
    from pipeline.faces.people.registry import flag_for
    from pipeline.faces.people.undo import Snapshot

    number = registry.resolve(_id(registry, words[0]))
    person, snapshot = registry.people[number], Snapshot.of_name(registry, number)
    before = person.name, person.decided
    registry.name(number, words[1])
    name = person.name
    if before != (name, person.decided):
        text = f"name {name} of person {number} (before: {before[0] or 'none'})"
        snapshot.record(registry, "name", text if name else f"removal of the name of {_who(number, before[0])}", number)
    earlier = f"; the name before was {before[0]}" if before[0] and before[0] != name else ""
    lines = [f"person {number} is {name}{earlier}" if name else f"person {number} has no name now"]
    others = [other for other in registry.named(name) if other != number] if name else []
    flag = flag_for(registry.path)
    lines += [f"so is person {k}; if they are one: reelgraph people merge {number} {k}{flag}" for k in others]
    return {"id": number, "name": name, "others_of_this_name": others}, lines


def _merge(registry: Registry, words: list[str], options: argparse.Namespace) -> Changed:
    from pipeline.faces.people.split import seen_together
    from pipeline.faces.people.undo import Snapshot

    ids = [_id(registry, word) for word in words]
    together = seen_together(registry, ids)
    if together and not options.force:
        where = ", ".join(f"{key} at {place}" for key, place in together.items())
        raise UsageError(
            f"people {', '.join(map(str, ids))} were seen side by side in one frame ({where}). They are not one "
            "person; if one is a picture of the other (a mirror, a poster), add --force"
        )
    numbers = [registry.resolve(number) for number in ids]
    gone = [number for number in dict.fromkeys(numbers) if number != numbers[0]]
    whom = [_who(number, registry.people[number].name) for number in (numbers[0], *gone)]
    snapshot = Snapshot.of(registry, numbers, gone)
    kept = registry.merge(ids)
    registry.people[kept].twice |= bool(together)
    snapshot.record(registry, "merge", f"merge of {' and '.join(whom[1:])} into {whom[0]}", kept)
    name = registry.people[kept].name
    gone = sorted(old for old, new in registry.merged.items() if new == kept)
    text = f"person {kept}{f' ({name})' if name else ''} is {', '.join(map(str, gone))} too"
    text += f"; they were seen side by side in {', '.join(together)}, so it is taken to happen" if together else ""
    return {"id": kept, "name": name, "merged": gone, "seen_together": list(together)}, [text]


def _split(registry: Registry, words: list[str], options: argparse.Namespace) -> Changed:
    from pipeline.faces.people.split import planned, split
    from pipeline.faces.people.undo import Snapshot

    number = registry.resolve(_id(registry, words[0]))
    if options.dry_run:
        made = planned(registry, number, words[1:], options.parts)
        kept = [f"person {number} would keep", *["a new person would get"] * (len(made) - 1)]
        lines = [
            f"{who} {plural(one['faces'], 'face')}: {', '.join(one['tracks'])}"
            for who, one in zip(kept, made, strict=True)
        ]
        return {"id": number, "dry_run": True, "parts": made}, [*lines, "nothing was changed"]
    snapshot = Snapshot.of(registry, [number])
    new = split(registry, number, words[1:], options.parts)
    parts, whom = " and ".join(f"person {one}" for one in new), _who(number, registry.people[number].name)
    snapshot.record(registry, "split", f"split of {parts} from {whom}", number, new)
    shown = [f"person {one}: {plural(registry.faces(one), 'face')}" for one in (number, *new)]
    return {"id": number, "new": new, "faces": {one: registry.faces(one) for one in (number, *new)}}, shown


CHANGES: dict[str, tuple[Callable[[Registry, list[str], argparse.Namespace], Changed], Callable[[int], bool], str]] = {
    "name": (
        _name, lambda count: count == 2,
        'people name takes an id and a name: reelgraph people name 3 "Ann Lee" ("" takes a name away)',
    ),
    "merge": (
        _merge, lambda count: count >= 2,
        "people merge takes at least two ids; the first is kept: reelgraph people merge 2 5",
    ),
    "split": (
        _split, lambda count: count >= 1,
        "people split takes an id, and tracks as INPUT:TRACK if they are known",
    ),
}  # fmt: skip
"""Change of the registry by its word, the number of arguments that it takes, and the error for another number."""


def _who(number: int, name: str | None) -> str:
    return f"person {number}" + (f" ({name})" if name else "")


def _registry(options: argparse.Namespace) -> Path:
    """Return the registry that was named, or the one that is found here. Raises UsageError."""
    from pipeline.faces.people.registry import DEFAULT_REGISTRIES, found_here

    if options.registry is not None:
        path = located(options.registry)
        if not path.is_file():
            raise UsageError(f"there is no registry at {path}; check --registry, or run: reelgraph people OUT")
        return path
    found = found_here()
    if found is not None:
        return found
    tried = " nor ".join(str(candidate) for candidate in DEFAULT_REGISTRIES)
    raise UsageError(f"there is neither {tried} here; say --registry FILE, or run: reelgraph people OUT")


def _id(registry: Registry, text: str) -> int:
    """Return the id of a person that is given by id or by name. Raises UsageError unless the name is one person's."""
    from pipeline.faces.people.registry import called, require_one

    found = called({number: one.name for number, one in registry.people.items()}, text)
    if not found:
        raise UsageError(f"{text!r} is neither an id nor a person's name; give an id: reelgraph people list shows them")
    require_one(found, text)
    return found[0]


COMMAND = Command("people", "say who is in stores, over all their videos; name, merge and split", _arguments, _people)
