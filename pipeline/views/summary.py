"""The end of a run, in a few lines."""

from __future__ import annotations

from pipeline.engine.summary import EXIT_MISTAKE, PassCounts, Summary
from pipeline.text import duration, plural, plural_of

SHOWN_FAILURES = 10
MOSTLY = 0.9
"""Share of the whole time that the chunks took; below it the rate does not follow from the numbers before it."""


def lines(summary: Summary) -> list[str]:
    """Return what was done, how fast, what limited it, what failed, and what to do next."""
    if summary.exit_code == EXIT_MISTAKE:  # each was named, with its error, as it was found
        return [f"none of the {summary.inputs_total} inputs can be used"] if summary.inputs_total > 1 else []
    if summary.chunks == 0 and summary.derived and not (summary.failures or summary.unusable or summary.drained):
        return [_derived(summary), *_failures(summary), _ending(summary), *_unread_advice(summary)]
    unfinished = summary.drained or (summary.follows and summary.inputs_complete < summary.inputs_total)
    if summary.chunks == 0 and not (summary.failures or summary.unusable or unfinished or summary.underived):
        closed = f", {plural(summary.chunks_accepted, 'failed chunk')} accepted" if summary.chunks_accepted else ""
        inputs = plural(summary.inputs_complete, "input")
        state = f"complete: {inputs} in {summary.out}{closed}, nothing to do"
        return [state, *_failures(summary), *_unread_advice(summary)]
    first = PassCounts(summary.item, (), summary.items, summary.rows, seconds=summary.seconds.get("run", 0.0))
    passes = [one for one in (first, *summary.further) if one.items] or [first]
    done = f"{'; '.join(map(_counted, passes))} in {duration(summary.seconds['total'])}"
    rates = [f"{one.items / one.seconds:.1f} {plural_of(one.item)}/s" for one in passes if one.seconds]
    if rates:
        working = sum(one.seconds for one in passes)
        start = " without start and end" if working < MOSTLY * summary.seconds["total"] else ""
        done += f" ({', then '.join(rates)}{start})"
    if summary.chunks_skipped:
        done += f"; {plural(summary.chunks_skipped, 'chunk')} done before"
    shown = [done]
    if summary.bottleneck and summary.model_steps:
        shown.append(
            f"bottleneck: {summary.bottleneck}. The models ran {summary.model_share:.0%} of the time"
            + _idle(summary)
        )
    if summary.derived:
        shown.append(_derived(summary))
    shown += _failures(summary)
    return [*shown, _ending(summary), *_unread_advice(summary)]


def _idle(summary: Summary) -> str:
    """Return what the model slots did in the rest of the time; "" if they were busy for most of it."""
    if summary.bottleneck not in summary.model_steps:
        return f"; the rest was waiting for {summary.bottleneck}"
    return "" if summary.model_share >= 0.5 else "; else they were loaded, waited for frames, or had no chunk"


def _counted(one: PassCounts) -> str:
    return ", ".join(plural(count, noun) for noun, count in {one.item: one.items, **one.rows}.items())


def _unread_advice(summary: Summary) -> list[str]:
    if not summary.unreadable or summary.failures:
        return []
    unread = plural(summary.unreadable_items, summary.item)
    return [f"{unread} stored as not decoded; --accept-failed takes that as success"]


def _derived(summary: Summary) -> str:
    return "from stored arrays: " + ", ".join(f"{stage} ({duration(s)})" for stage, s in summary.derived.items())


def _failures(summary: Summary) -> list[str]:
    shown = [f"not usable: {entry['error']}" for entry in summary.unusable]
    if summary.broken:
        shown.append(f"{plural(summary.broken, summary.item)} of them cannot be read; the array `error` says why")
    for one in summary.further:
        if one.broken:
            shown.append(f"{plural(one.broken, one.item)} of them left out: a {summary.item} of each cannot be read")
    for entry in summary.unreadable[:SHOWN_FAILURES]:
        where = f" in {entry['time_range']}" if entry["time_range"] else ""
        unread = plural(len(entry["frames"]), summary.item)
        shown.append(f"{entry['input']}: {unread} not read{where}: {entry['error']}")
    for entry in summary.failures[:SHOWN_FAILURES]:
        which = "" if entry["chunk"] is None else f"chunk {entry['chunk']} ({entry['time_range']}) failed: "
        shown.append(f"{entry['input']}: {which}{entry['error']}")
    shown += [f"{entry['input']}: {entry['error']}; run again to repeat it" for entry in summary.underived]
    hidden = max(0, len(summary.failures) - SHOWN_FAILURES) + max(0, len(summary.unreadable) - SHOWN_FAILURES)
    shown += [f"... and {hidden} more: reelgraph status {summary.out}"] if hidden else []
    return [*shown, f"tracebacks: {summary.traceback_log}"] if summary.traceback_log else shown


def _ending(summary: Summary) -> str:
    state = f"{summary.inputs_complete} of {plural(summary.inputs_total, 'input')} complete in {summary.out}"
    if summary.follows:
        return f"{state}; the same command goes on"
    if summary.drained:
        return f"{state}; drained: the same command continues"
    if summary.failures:
        return (
            f"{state}; {plural(len(summary.failures), 'chunk')} failed: "
            "--retry-failed tries them again, --accept-failed closes the store without them"
        )
    return state
