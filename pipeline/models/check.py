"""Check that the weights on this machine are complete and undamaged."""

from __future__ import annotations

import base64
from importlib import metadata
from typing import Any, Literal

from pipeline.models import download
from pipeline.models.card import ModelCard
from pipeline.models.weights import Located, locate, sha256

State = Literal["ok", "missing", "damaged"]


def check(card: ModelCard) -> list[dict[str, Any]]:
    """Return one result per file: its size and hash if known and, for ONNX, whether ONNX Runtime opens it."""
    results = []
    for found in locate(card):
        state, why, remedy = _check(found)
        result = {"model": card.name, "file": found.file.name, "path": str(found.path)}
        results.append({**result, "state": state, "why": why, "remedy": remedy})
    return results


def _check(found: Located) -> tuple[State, str, str]:
    if not found.present:
        return "missing", "not here", found.remedy
    wrong = download.damage(found)
    expected = _packaged_sha256(found) if found.package else ""
    if not wrong and expected and sha256([found.path]) != expected:
        wrong = f"sha256 {sha256([found.path])[:12]}, not {expected[:12]} as its package records"
    if wrong:
        return "damaged", wrong, found.remedy
    if found.path.suffix == ".onnx":
        wrong = _why_not_opened(found)
        if wrong:
            # Its hash is right or unknown, so a plain fetch would keep the file: only --force replaces it.
            return "damaged", wrong, found.remedy if found.package else f"{found.remedy} --force"
    return "ok", _proof(found), ""


def _proof(found: Located) -> str:
    opened = ", opens" if found.path.suffix == ".onnx" else ""
    if found.file.sha256:
        return f"sha256 as published{opened}"
    if found.package and _packaged_sha256(found):
        return f"sha256 as its package records{opened}"
    record = download.read_record(found.path)
    if record.sha256:
        return f"sha256 as {'published' if record.published else 'downloaded'}{opened}"
    return f"{'size as published' if found.file.size_bytes else 'no hash is known'}{opened}"


def _packaged_sha256(found: Located) -> str:
    """Return the hash that pip recorded when it installed a file; empty if the installer recorded no hashes."""
    if found.file.packaged is None:
        return ""
    try:
        files = metadata.files(found.file.packaged.project) or []
    except metadata.PackageNotFoundError:  # another package carries it, for example opencv-python
        return ""
    for path in files:
        if path.name == found.path.name and path.hash is not None and path.hash.mode == "sha256":
            return base64.urlsafe_b64decode(path.hash.value + "=").hex()
    return ""


def _why_not_opened(found: Located) -> str:
    """Return the error of opening a session on the CPU, without optimising the graph; empty if it opens."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        onnxruntime.InferenceSession(str(found.path), options, providers=["CPUExecutionProvider"])
    except Exception as err:  # ONNX Runtime's errors have no common base class
        return f"ONNX Runtime cannot open it: {' '.join(str(err).split())[:200]}"
    return ""
