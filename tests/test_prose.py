"""The linter of the prose: what each rule refuses, and what it lets pass."""

from pathlib import Path

import pytest

from tests import prose


def _rules(source: str) -> list[str]:
    return [hit.rule for hit in prose.check(source)]


def _function(docstring: str) -> str:
    return f'def f():\n    """{docstring}"""\n'


def _field(docstring: str) -> str:
    return f'class C:\n    x: int\n    """{docstring}"""\n'


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        pytest.param("opener", _function("What a store holds."), id="what"),
        pytest.param("opener", _function("Of a file: its size."), id="of"),
        pytest.param("opener", _function("Whether the file is open."), id="whether"),
        pytest.param("opener", _function("and closes the file."), id="hangs on the line above"),
        pytest.param("opener", _function("The same for many."), id="hangs on another function"),
        pytest.param("opener", _field("Whose face it is."), id="field"),
        pytest.param("opener", _field("in seconds."), id="field that hangs on its name"),
        pytest.param("opener", '"""How stores are written."""', id="module"),
        pytest.param("opener", 'class C:\n    """What is known of a file."""', id="class"),
        pytest.param("where", _function("Return the size. Raises OSError where it is gone."), id="raises"),
        pytest.param("where", _function("Return the name, None where there is none."), id="none where"),
        pytest.param("where", _function("Read the file. Where it is damaged, read on."), id="sentence"),
        pytest.param("where", 'raise UsageError(f"{name} is damaged, where it was whole")', id="message"),
        pytest.param("nobody", 'raise UsageError("nobody is called Anna")', id="nobody"),
        pytest.param("nobody", _function("Print the rest. It is had from the file."), id="passive"),
        pytest.param("is no", "raise UsageError(f\"'{parts}' parts are no split\")", id="no split"),
        pytest.param("is no", _field("The size; 0 if it is none."), id="is none"),
        pytest.param("word", 'parser.add_argument("--x", help="is heeded with align: deepface")', id="help"),
        pytest.param("word", 'x: int = Field(3, description="make the index anew")', id="description"),
        pytest.param("word", 'note = "the model cannot be had"', id="any message"),
        pytest.param("plural", 'text = "input" + "s" * (n != 1)', id="times"),
        pytest.param("plural", "text = f\"{n} input{'s' if n != 1 else ''}\"", id="if"),
        pytest.param("long", _function("Return " + "a word and " * 9 + "a stop."), id="long"),
        pytest.param("long", 'raise ValueError(f"{name} ' + "is and " * 13 + 'stops")', id="long message"),
    ],
)
def test_refuses(rule: str, source: str) -> None:
    assert _rules(source) == [rule]


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(_function("Return the size in bytes; 0 if it is empty. Raises OSError."), id="imperative"),
        pytest.param(_field("Path of the video."), id="noun phrase"),
        pytest.param(_field("float32 (n, 4): x, y, w, h in pixels."), id="dtype"),
        pytest.param(_field("x, y in pixels."), id="names of columns"),
        pytest.param(_function("Return the folder where the weights lie."), id="place"),
        pytest.param(_function("Print where the file is."), id="place of a verb"),
        pytest.param(_function("Return at most `limit` rows; there is no order in them."), id="there is no"),
        pytest.param(_field("Rows, once there is no longer a limit. It is no longer than a chunk."), id="no longer"),
        pytest.param('x = y.get("where", "nobody")', id="keys are not messages"),
        pytest.param(_function("Return it.\n\n    | a | b |\n" + "    | word | word |\n" * 30), id="table"),
        pytest.param(_function("Check:\n\n" + "    - an item of words\n" * 10), id="list"),
        pytest.param(_function("Return " + "a word and " * 5 + "a stop. " + "Again " * 20 + "."), id="two sentences"),
    ],
)
def test_lets_pass(source: str) -> None:
    assert _rules(source) == []


def test_line_and_excerpt() -> None:
    hits = prose.check('"""A module."""\n\n\n' + _function("Return a name.\n\n    None where it has none."))
    assert hits == [prose.Hit(5, "where", "Return a name. None where it has none.")]


def test_prints_each_hit_and_the_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one.py").write_text('"""What it is."""', encoding="utf-8")
    (tmp_path / "two.py").write_text('raise ValueError("nobody is there")', encoding="utf-8")
    assert prose.main([str(tmp_path), "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1] for line in lines[:-1]] == ["opener", "nobody"]
    assert lines[-1] == "prose: opener 1, where 0, nobody 1, is no 0, word 0, plural 0, long 0"


@pytest.mark.parametrize(("words", "code", "said"), [(2, 0, "lower its limit"), (1, 0, None), (0, 1, "exceeds")])
def test_limits_may_only_fall(
    words: int,
    code: int,
    said: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline/one.py").write_text('"""What it is."""', encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(f"[tool.reelgraph.prose]\nwords = {words}\nlong = 0\n", encoding="utf-8")
    assert prose.main([]) == code
    out = capsys.readouterr().out
    assert said in out if said else len(out.splitlines()) == 1
