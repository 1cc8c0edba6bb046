"""The example notebook: stored without outputs, and true when it is run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
NOTEBOOK = Path(__file__).parent.parent / "docs" / "example.ipynb"


def test_notebook_is_stored_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) >= 5
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the Jupyter packages themselves
def test_notebook_runs_and_finds_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for package in ("skimage", "matplotlib"):
        pytest.importorskip(package)
    repository = str(NOTEBOOK.parent.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [repository, os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    parameters = next(i for i, c in enumerate(notebook.cells) if "parameters" in c.metadata.get("tags", []))
    changed = nbformat.v4.new_code_cell(f"folder, options = Path({str(tmp_path)!r}), {{'executor': 'inline'}}")
    notebook.cells.insert(parameters + 1, changed)
    said = "import json; print(json.dumps([float(recall), strangers, float(distance[pair][same].max()), len(faces)]))"
    notebook.cells.append(nbformat.v4.new_code_cell(said))

    nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3").execute(cwd=str(tmp_path))

    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    recall, strangers, farthest, n_faces = json.loads(notebook.cells[-1].outputs[-1].text)
    assert n_faces > 50
    assert recall >= 0.95
    assert strangers <= 0.1 * n_faces
    assert farthest < 0.6, "one person's faces lie further apart than two people's may"
