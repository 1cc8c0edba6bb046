"""The door to `pipeline.faces.deepface`: DeepFace's functions over videos, pictures and batches, resumable."""

from pipeline.faces.deepface import *  # noqa: F403
from pipeline.faces.deepface import __all__ as __all__
