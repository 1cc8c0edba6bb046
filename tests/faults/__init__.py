"""Workflows of one stage that fails, is slow or counts, and the stages themselves (faulty.py)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml


def one_stage(folder: Path, use: str, every: int = 1, **options: Any) -> Path:
    """Write a workflow whose stage `grey` is `faulty:use`, with faulty.py beside it, where its stages are found."""
    shutil.copy(Path(__file__).parent / "faulty.py", folder)
    path = folder / "workflow.yaml"
    stages = {"grey": {"use": f"faulty:{use}", "options": options}}
    path.write_text(yaml.safe_dump({"source": {"every": every}, "stages": stages}))
    return path
