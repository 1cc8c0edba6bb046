"""Run as a program: what DeepFace's own detector clients find in some pictures.

`python stock_clients.py PICTURES RESULT`: PICTURES is an .npz of BGR pictures; RESULT becomes JSON: client, picture,
and a list of faces, each x, y, w, h, confidence and the five landmarks, null where the client passes none on. A process
of its own, since DeepFace and retina-face choose their engine once per process.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

CLIENTS = {"yunet": "YuNet", "retinaface": "RetinaFace", "centerface": "CenterFace"}
POINTS = ("right_eye", "left_eye", "nose", "mouth_right", "mouth_left")


def described(face: Any) -> list[Any]:
    box = [int(face.x), int(face.y), int(face.w), int(face.h)]
    points = [getattr(face, name) for name in POINTS]
    return [box, float(face.confidence), [None if point is None else [int(v) for v in point] for point in points]]


def main(pictures: Path, result: Path) -> None:
    os.environ["DEEPFACE_BACKEND_ENGINE"] = "onnx"
    found: dict[str, dict[str, list[Any]]] = {}
    for name, module in CLIENTS.items():
        client = getattr(importlib.import_module(f"deepface.models.face_detection.{module}"), f"{module}Client")()
        with np.load(pictures) as pixels:
            found[name] = {key: [described(face) for face in client.detect_faces(pixels[key])] for key in pixels}
    result.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
