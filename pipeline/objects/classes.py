"""Names of classes: given, one on each line of a file, in the notes of an ONNX file, or those of COCO."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.files.regular import read_file

COCO = "coco"
"""Stands for the 80 names below."""
_TEXT = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
COCO_NAMES = tuple(_TEXT.split(","))
"""Names of COCO's 80 classes in the order of their numbers, as most detectors have them."""
OLDER_NAMES = {
    "motorbike": "motorcycle", "aeroplane": "airplane", "sofa": "couch", "pottedplant": "potted plant",
    "diningtable": "dining table", "tvmonitor": "tv",
}  # fmt: skip
"""COCO's names of the classes that PASCAL VOC names otherwise, as darknet and FastestDet do."""


def read_names(path: Path) -> list[str]:
    """Return the names of a file, one on each line; empty lines do not count. Raises ModelError if there are none."""
    try:
        lines = read_file(path).decode("utf-8-sig").splitlines()
    except OSError as error:
        raise ModelError(f"classes {path} cannot be read: {error.strerror or error}; give a file of names") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"classes {path} is not a text in UTF-8; give a file with one name on each line") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise ModelError(f"classes {path} holds no name; give a file with one name on each line")
    return names


def given_names(classes: str | Sequence[str] | None) -> list[str] | None:
    """Return the names that the option `classes` gives; None if it is not set. Raises ModelError."""
    if classes is None:
        return None
    if classes == COCO:
        return list(COCO_NAMES)
    return read_names(Path(classes)) if isinstance(classes, str) else list(classes)


def noted_names(metadata: Mapping[str, str]) -> list[str] | None:
    """Return the names in the notes of an ONNX file, as Ultralytics writes them; None if there are none."""
    try:
        names = ast.literal_eval(metadata.get("names", ""))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            return None
        names = [names[number] for number in range(len(names))]
    return [str(name) for name in names] if isinstance(names, list | tuple) and names else None
