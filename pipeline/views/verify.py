"""`reelgraph verify`: the result of a verification, for a person."""

from __future__ import annotations

from pipeline.store.verify import Verified
from pipeline.text import plural


def lines(found: Verified) -> list[str]:
    """Return what was read, what was written again, and each flaw with the command that puts it right."""
    read = f"{plural(found.inputs, 'input')}, {plural(found.arrays, 'array')}, {plural(found.chunks, 'chunk file')}"
    verdict = f"{plural(len(found.flaws), 'flaw')}" if found.flaws else "nothing is damaged"
    shown = [f"{found.out}: {read} read; {verdict}"]
    shown += [f"  written again: {place}" for place in found.repaired]
    for flaw in found.flaws:
        shown += [f"  {flaw.place}: {' '.join(flaw.what.split())}", f"    to fix it: {flaw.mend}"]
    return shown
