"""Options of a stage of one's own: any type that pydantic has, the same resume key in each process."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from pipeline.engine.stage import StageOptions
from pipeline.engine.values import json_values
from pipeline.errors import StoreError, WorkflowError
from pipeline.views.workflows import describe
from tests.own import PLAIN, Own

STAGE = PLAIN.replace("from pipeline", "from pydantic import Field\n\nfrom pipeline").replace(
    "class Square(Stage):",
    "class Options(StageOptions):\n    power: int = 2\n    of: list[int] = Field(default_factory=lambda: [1, 2])\n"
    "    again: list[int] = Field(default_factory=lambda known: [known['power']])\n\n\n"
    "class Square(Stage):\n    Options = Options",
).replace("Array, Stage", "Array, Stage, StageOptions")  # fmt: skip


class _Sets(StageOptions):
    names: set[str] = Field(default=set("reelgraph"))
    deep: dict[str, tuple[frozenset[int], str]] = Field(default={"a": (frozenset({9, 1, 5}), "b")})


def test_sets_have_one_order_in_each_process() -> None:
    """A run that was continued was refused: the order of a set, and with it the resume key, is that of the process."""
    assert _Sets().keyed() == json_values(_Sets()) == {"names": list("aeghlpr"), "deep": {"a": [[1, 5, 9], "b"]}}


class _Numbers(StageOptions):
    every: int = 1
    share: Annotated[float, Field(ge=0)] | None = None
    size: int | tuple[int, int] | None = None
    switch: bool | float = 1.0
    word: Literal["on", "off"] | None = None
    free: Any = None


@pytest.mark.parametrize("values", [{"every": True}, {"share": False}, {"size": True}, {"size": [True, 3]}])
def test_true_is_no_number(own: Own, values: dict[str, object]) -> None:
    """YAML reads `on` and `yes` as true, and pydantic takes that as 1: `resize: on` made pictures of one pixel."""
    with pytest.raises(ValidationError, match=r"this needs a number, not (True|False)"):
        _Numbers.model_validate(values)
    assert _Numbers.model_validate({"switch": True, "free": True, "every": "2", "size": [3, 4]}).switch is True
    own.module("plain", STAGE)
    with pytest.raises(WorkflowError, match=r"own.yaml: stages.mine.power: this needs a number, not True$"):
        own.run(own.workflow({"mine": {"use": "plain:Square", "power": True}}))
    with pytest.raises(WorkflowError, match=r"source.skip: this needs a number, not True$"):
        own.run(own.workflow({"mine": "plain:Square"}, skip=True))


def test_a_default_that_is_made_by_a_function(own: Own) -> None:
    """The refusal of another option ended in a traceback."""
    own.module("plain", STAGE)
    path = own.workflow({"mine": "plain:Square"})
    assert own.run(path).summary.exit_code == 0
    with pytest.raises(StoreError, match=r"\(mine\.power: 2 -> 3; mine\.again: \[2\] -> \[3\]\); go on with"):
        own.run(path, set={"mine.power": 3})
    with pytest.raises(StoreError, match=r"\(mine\.of: \[1, 2\] -> \[3\]\)"):
        own.run(path, set={"mine.of": [3]})
    (_, section) = describe(str(path))["sections"]
    assert [one["default"] for one in section["options"]] == [2, [1, 2], None]
