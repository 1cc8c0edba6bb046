"""A stage that costs next to nothing: what is left is decoding, the cluster and the store."""

import numpy as np

from pipeline import Array, Chunk, Stage


class Grey(Stage):
    """Mean grey level of every eighth pixel of each frame."""

    needs = ("frames_rgb",)
    outputs = (Array("grey", ("frame",), "float32", attributes={"units": "grey level"}),)

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        return {"grey": chunk.frames_rgb[:, ::8, ::8].mean(axis=(1, 2, 3)).astype(np.float32)}
