"""Makes the reference of the Python API from docstrings: `make docs`, or

python docs/reference.py [FOLDER]        needs: pip install -e ".[docs]"; writes FOLDER/index.html (build/docs)

Only what users and writers of extensions import is in it. A docstring that cannot be rendered, or a name that cannot
be found, ends it with an error.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pdoc
import pdoc.render

import pipeline

REPOSITORY = Path(__file__).parent.parent
MODULES = (
    "pipeline",
    r"!pipeline\..*",  # of its modules, those that follow
    "pipeline.deepface",
    "pipeline.errors",
    "pipeline.cluster.options",
    "pipeline.engine.events",
    "pipeline.engine.source",
    "pipeline.engine.stage",
    "pipeline.engine.summary",
    "pipeline.engine.workflow",
    "pipeline.machine.device",
    "pipeline.models.card",
    "pipeline.store.read",
    "pipeline.store.schema",
    "pipeline.faces.table",
    "pipeline.views.export",
    "pipeline.views.tables.rows",
    "pipeline.views.report.panel",
    "pipeline.loader.augment",
    "pipeline.loader.loader",
    "pipeline.commands",
    r"!pipeline\.commands\..*",
)


def main(folder: Path = REPOSITORY / "build" / "docs") -> None:
    """Write the pages. Raises an exception for each warning of pdoc."""
    for name in pipeline.__all__:
        vars(pipeline)[name] = getattr(pipeline, name)  # they load on first use, and pdoc only looks
    pdoc.render.configure(docformat="markdown", footer_text=f"reelgraph {pipeline.__version__}", search=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.pdoc(*MODULES, output_directory=folder)


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:2]))
