"""`reelgraph workflows`: what is shipped; a workflow's stages and options, from the same classes that validate them."""

from __future__ import annotations

import math
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from pipeline.engine.values import default_of


def describe(path: str) -> dict[str, Any]:
    """The source and the stages of a workflow, each with its options. Raises WorkflowError."""
    from pipeline.engine.workflow import load_workflow

    workflow = load_workflow(path)
    sections = []
    for one in workflow.passes:
        sections.append(_section(one.section, one.source_kind, type(one.source_options), one.source_options))
        for node in one.stages:
            entry = _section(node.name, node.use, node.stage.Options, node.stage.options)
            arrays = [{"name": a.name, "dims": list(a.dims), "dtype": a.dtype} for a in node.stage.outputs]
            sections.append({**entry, "after": [*node.before, *node.after], "arrays": arrays})
    return {"workflow": path, "sections": sections}


def describe_all() -> dict[str, Any]:
    """Describe the shipped workflows, and every stage that `use:` finds by name."""
    from pipeline.engine.finding import STAGES, find_each
    from pipeline.engine.shipped import shipped_workflows
    from pipeline.engine.stage import Stage

    stages = find_each("stage", STAGES, Stage)
    return {
        "workflows": [{"name": w.name, "about": w.about, "path": str(w.path)} for w in shipped_workflows()],
        "sections": [_section(name, name, stage.Options, None) for name, stage in sorted(stages.items())],
    }


def _section(name: str, use: str, model: type[BaseModel], values: BaseModel | None) -> dict[str, Any]:
    options = []
    for option, field in model.model_fields.items():
        default = default_of(field)
        value = getattr(values, option) if values is not None else default
        options.append({"name": option, "value": value, "default": default, "help": field.description or ""})
    return {"name": name, "use": use, "options": options}


def lines(described: dict[str, Any]) -> list[str]:
    shown = _shipped_lines(described.get("workflows", []))
    for section in described["sections"]:
        after = f", after {', '.join(section['after'])}" if section.get("after") else ""
        shown.append(f"{section['name']} ({section['use']}{after})")
        for option in section["options"]:
            changed = "" if option["value"] == option["default"] else f" (default {_as_yaml(option['default'])})"
            shown.append(f"    {option['name']}: {_as_yaml(option['value'])}{changed}  {option['help']}".rstrip())
        for array in section.get("arrays", []):
            shown.append(f"    -> {array['name']} ({', '.join(array['dims'])}) {array['dtype']}")
    return shown


def _as_yaml(value: Any) -> str:
    """Return a value as a workflow file or `--set` takes it, on one line."""
    plain = to_jsonable_python(value, fallback=str)
    dumped = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=math.inf)
    return dumped.removesuffix("\n").removesuffix("\n...")


def _shipped_lines(workflows: list[dict[str, Any]]) -> list[str]:
    if not workflows:
        return []
    width = max(len(workflow["name"]) for workflow in workflows)
    listed = [f"    {workflow['name']:{width}}  {workflow['about']}".rstrip() for workflow in workflows]
    return [
        "shipped workflows: `reelgraph run NAME`, or `reelgraph init NAME` for a copy to edit",
        *listed,
        "",
        "stages for workflows of your own",
    ]
