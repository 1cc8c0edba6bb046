"""Events of a run: what a listener is told, in which order, and that progress and summary say the same."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.engine.events import (
    ChunkDone,
    ClusterReady,
    Event,
    InputDone,
    InputStarted,
    InputUnusable,
    Note,
    RunDone,
    RunStarted,
    StepStarted,
)
from pipeline.views.progress import Tally
from tests import own as texts
from tests.own import Own


class Heard:
    """Keeps what it is told; ends the run, as Ctrl-C does, after some chunks."""

    def __init__(self, most_chunks: int | None = None) -> None:
        self.events: list[Event] = []
        self.most_chunks = most_chunks

    def on(self, event: Event) -> None:
        self.events.append(event)
        if self.most_chunks is not None and len(self.of(ChunkDone)) == self.most_chunks:
            raise KeyboardInterrupt

    def of(self, kind: type[Event]) -> list:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture(autouse=True)
def modules(own: Own) -> None:
    own.module("things", texts.OBJECTS)
    own.module("plain", texts.PLAIN)


def test_in_order(own: Own) -> None:
    other = own.numbers(3, 4, name="other")
    heard = Heard()
    path = own.workflow({"objects": "things:Objects", "square": "plain:Square"})
    run = own.run(path, own.folder / "numbers.txt", other, listener=heard)
    events = heard.events
    assert events[0] == RunStarted(str(own.out), 2, "frame", ("object", "keypoint"))
    assert events[-1] == RunDone(0)
    assert [type(event) for event in events[1:3]] == [InputStarted, ClusterReady]
    assert heard.of(InputStarted) == [InputStarted("numbers", 12), InputStarted("other", 2)]
    assert heard.of(InputDone) == [InputDone("numbers"), InputDone("other")]
    for name, chunks in (("numbers", [0, 1, 2]), ("other", [0])):
        of_input = [event for event in events if getattr(event, "name", None) == name]
        assert (type(of_input[0]), type(of_input[-1])) == (InputStarted, InputDone)
        assert [event.chunk for event in of_input if isinstance(event, ChunkDone)] == chunks
        for chunk in chunks:
            steps = [event for event in of_input if getattr(event, "chunk", None) == chunk]
            assert [event.step for event in steps[:-1]] == ["decode", "objects", "square", "write"]
            assert [event.steps_done for event in steps[:-1]] == [0, 1, 2, 3]
            assert {event.steps for event in steps[:-1]} == {4}
            assert isinstance(steps[-1], ChunkDone)
    done = heard.of(ChunkDone)
    assert [event.items for event in done] == [5, 5, 2, 2]
    assert [event.rows["object"] for event in done] == [10, 35, 21, 7]
    assert set(done[0].seconds) == {"decode", "objects", "square", "write"}
    assert [event.elapsed_seconds for event in done] == sorted(event.elapsed_seconds for event in done)
    assert run.summary.chunks == 4


def test_together(own: Own) -> None:
    """Inputs advance in turns, and give the arrays that they give one after the other."""
    others = [own.numbers(*range(count), name=name) for name, count in (("b", 7), ("c", 12))]
    path = own.workflow({"objects": "things:Objects"})
    heard = Heard()
    run = own.run(path, own.folder / "numbers.txt", *others, listener=heard, together=2)
    assert [event.name for event in heard.of(ChunkDone)] == ["numbers", "b", "numbers", "b", "c", "numbers", "c", "c"]
    alone = own.run(path, own.folder / "numbers.txt", *others, out=own.folder / "alone.zarr")
    for name in ("numbers", "b", "c"):
        for array in ("line", "n_objects", "size", "at"):
            np.testing.assert_array_equal(run.array(name, array), alone.array(name, array))



def test_progress_and_summary_say_the_same(own: Own) -> None:
    path = own.workflow({"objects": "things:Objects"})
    with pytest.raises(KeyboardInterrupt):
        own.run(path, listener=Heard(1))
    tally = Tally()
    run = own.run(path, listener=tally)
    count = tally.counts["numbers"]
    assert (count.items, count.done_before, count.done, count.finished) == (12, 5, 12, True)
    assert (run.summary.items, run.summary.chunks, run.summary.chunks_skipped) == (7, 2, 1)
    assert count.rows == run.summary.rows
    assert tally.rate == run.summary.items_per_second > 0
    assert tally.rate == run.summary.as_dict()["frames_per_second"]
    assert tally.left_seconds == 0


def test_inputs_that_are_not_usable_do_not_wait() -> None:
    tally = Tally()
    for event in (RunStarted("out.zarr", 3, "frame", ()), InputUnusable("broken.mp4"), InputStarted("a", 9)):
        tally.on(event)
    assert tally.total() == "0 of 3 inputs, 1 under way, 1 waiting, 1 not usable; 0 frames"
    assert tally.waiting_items == 9


def test_a_complete_store_is_told_of_in_short(own: Own) -> None:
    path = own.workflow({"square": "plain:Square"})
    own.run(path)
    heard = Heard()
    own.run(path, listener=heard)
    assert heard.events == [
        RunStarted(str(own.out), 1, "frame", ()),
        InputStarted("numbers", 12, 12),
        InputDone("numbers"),
        RunDone(0),
    ]


def test_failures_are_told(own: Own) -> None:
    failing = texts.PLAIN.replace("        return", '        assert 6 not in chunk["number"]\n        return')
    own.module("plain", failing)
    heard = Heard()
    path = own.workflow({"square": "plain:Square"})
    run = own.run(path, listener=heard)
    assert [(event.chunk, event.items, event.failed) for event in heard.of(ChunkDone)] == [
        (0, 5, False), (1, 0, True), (2, 2, False),
    ]  # fmt: skip
    assert heard.of(InputDone) == [InputDone("numbers", 1)]
    assert heard.events[-1] == RunDone(1)
    assert [note.text for note in heard.of(Note)] == [
        f"numbers: chunk 1 (lines 6 to 10) failed: {run.summary.failures[0]['error']}"
    ]
    steps = [event.step for event in heard.of(StepStarted) if event.chunk == 1]
    assert steps == ["decode", "square", "write"] * 2  # it was tried twice
    again = Heard()
    own.run(path, listener=again)
    assert again.of(InputStarted) == [InputStarted("numbers", 12, 7)]
    assert again.of(ChunkDone) == []
    assert again.of(InputDone) == [InputDone("numbers", 1)]
