"""The benchmark of the client drives the real plan: its made-up video has all that a real one has."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def client(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    return importlib.import_module("client")


def test_tasks_of_a_made_up_video(client: Any, tmp_path: Path) -> None:
    measured = client.plan_many(2000, tmp_path)
    assert (measured["chunks"], measured["tasks"]) == (2000, 2)


def test_a_resume_plans_what_is_left(client: Any, tmp_path: Path) -> None:
    measured = client.resume_many(3000, tmp_path)
    assert (measured["committed"], measured["to_do"]) == (3000, 3)
