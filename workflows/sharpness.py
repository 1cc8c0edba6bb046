"""A stage of one's own: how sharp each face is. `workflows/sharp_faces.yaml` uses it."""

import cv2
import numpy as np
from pydantic import Field

from pipeline import Array, Chunk, Stage, StageOptions


class SharpnessOptions(StageOptions):
    size: int = Field(3, ge=1, le=31, description="aperture of the Laplacian, odd, in pixels")


class Sharpness(Stage):
    """Variance of the Laplacian of each face's grey crop: low where it is blurred.

    After Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    """

    needs = ("frames_rgb", "n_faces", "box")
    slot = "cpu"
    Options = SharpnessOptions
    outputs = (Array("sharpness", ("face",), "float32", attributes={"units": "grey level squared"}),)

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        height, width = chunk.frames_rgb.shape[1:3]
        sharpness = np.zeros(len(chunk["box"]), np.float32)
        for row, (frame, (x, y, w, h)) in enumerate(zip(chunk.face_frame, chunk["box"], strict=True)):
            left, top = max(int(x), 0), max(int(y), 0)
            crop = chunk.frames_rgb[frame, top : min(int(y + h), height), left : min(int(x + w), width)]
            if crop.size:
                grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
                sharpness[row] = cv2.Laplacian(grey, cv2.CV_32F, ksize=self.options.size).var()
        return {"sharpness": sharpness}
