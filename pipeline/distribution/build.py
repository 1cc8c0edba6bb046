"""The build step that puts `workflows/` of the repository into the wheel, as `pipeline/workflows`.

pyproject.toml names it. Nothing of this folder but the package `reelgraph` is installed.
"""

from __future__ import annotations

from pathlib import Path

from setuptools.command.build_py import build_py

WORKFLOWS = Path("workflows")
TARGET = Path("pipeline", "workflows")
SOURCES_ONLY = ("CHANGELOG.md", "pipeline/distribution/build.py")
"""Files that the source distribution has and the wheel does not."""


class BuildPy(build_py):  # type: ignore[misc]  # without its types
    """Builds the packages as setuptools does, then adds the workflows."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # an editable installation reads them where they are
        for file in _workflow_files():
            target = Path(self.build_lib, TARGET, file.relative_to(WORKFLOWS))
            self.mkpath(str(target.parent))
            self.copy_file(str(file), str(target), preserve_mode=True)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        added = [Path(self.build_lib, TARGET, file.relative_to(WORKFLOWS)) for file in _workflow_files()]
        return [*super().get_outputs(include_bytecode), *map(str, added)]

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *map(str, _workflow_files()), *SOURCES_ONLY]


def _workflow_files() -> list[Path]:
    return sorted(p for p in WORKFLOWS.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
