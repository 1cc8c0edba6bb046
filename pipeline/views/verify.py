"""`reelgraph verify`: the result of a verification, for a person."""

from __future__ import annotations

import shlex
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.media.images.copies import Inventory
from pipeline.store import read
from pipeline.store.verify import Flaw, Verified
from pipeline.text import plural


def flaws_of_lists(place: Path) -> list[Flaw]:
    """Read the lists of pictures of a store, and return what is damaged. Raises StoreError."""
    flaws = []
    for item in read.open(place).inputs.values():
        mend = f"reelgraph run WORKFLOW INPUT... --out {shlex.quote(str(place))} --fresh"
        try:
            inventory = Inventory.of_input(item)
        except StoreError as err:
            flaws.append(Flaw(f"{place}/{item.name}", str(err), mend))
            continue
        if inventory is not None and len(inventory.names) != item.frames_total:
            why = f"its list has {plural(len(inventory.names), 'picture')}; there are {item.frames_total}"
            flaws.append(Flaw(f"{place}/{item.name}", why, mend))
    return flaws


def lines(found: Verified) -> list[str]:
    """Return what was read, what was written again, and each flaw with the command that puts it right."""
    read = f"{plural(found.inputs, 'input')}, {plural(found.arrays, 'array')}, {plural(found.chunks, 'chunk file')}"
    verdict = f"{plural(len(found.flaws), 'flaw')}" if found.flaws else "nothing is damaged"
    shown = [f"{found.out}: {read} read; {verdict}"]
    shown += [f"  written again: {place}" for place in found.repaired]
    for flaw in found.flaws:
        shown += [f"  {flaw.place}: {' '.join(flaw.what.split())}", f"    to fix it: {flaw.mend}"]
    return shown
