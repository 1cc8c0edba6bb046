"""DeepFace's represent, analyze and find over videos and batches of frames, on this engine.

    for frame, faces in pipeline.deepface.represent("clip.mp4", every=5, detector_backend="mtcnn", model_name="Dlib"):
        ...

Parameters and defaults are DeepFace's own (0.0.103), and so is the value for each frame, in order. If DeepFace would
raise for a frame (no face with `enforce_detection`, a spoof with `anti_spoofing`), `next` raises the same exception.
The iterator then goes on with the next frame.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cluster.options import ClusterOptions
from pipeline.faces.deepface.analysis import Analysis
from pipeline.faces.deepface.results import Analyzed, Found, Represented
from pipeline.text import unknown

if TYPE_CHECKING:
    from pipeline.faces.deepface.frames import Source

ACTIONS = ("emotion", "age", "gender", "race")

__all__ = ["ACTIONS", "analyze", "find", "represent"]


def represent(
    frames: Source,
    model_name: str = "VGG-Face",
    enforce_detection: bool = True,
    detector_backend: str = "opencv",
    align: bool = True,
    expand_percentage: int = 0,
    normalization: str = "base",
    anti_spoofing: bool = False,
    max_faces: int | None = None,
    l2_normalize: bool = False,
    minmax_normalize: bool = False,
    return_face: bool = False,
    *,
    every: int = 1,
    start: float | str | None = None,
    stop: float | str | None = None,
    out: str | Path | None = None,
    **cluster: Any,
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield (rank of the frame, what `DeepFace.represent` returns for it) for every sampled frame, in order.

    `frames`: a video file, or any input that DeepFace accepts as one image (path, URL, base64, file object, BGR array).
    Also a list, a 4-D array or an iterable of those. `every`, and for a video `start` and `stop` (seconds or H:MM:SS),
    sample it. With `out` a video first runs on a cluster into that store. A second call carries on, or only reads.
    `cluster` then holds options of `pipeline.run` (executor, fresh, workers, gpus, scheduler ...). Without `out` the
    chunks run in this process, while the next one is decoded.

    Arrays are uint8, or float from 0 to 1 or to 255, such as the "face" that DeepFace's `extract_faces` returns with
    color_face="bgr". As in DeepFace, detectors expect 0 to 255, and opencv finds nothing in any type but uint8.

    Raises ReelgraphError for unknown names and missing weights, ValueError for input that is not a picture. Raises
    TypeError for a parameter that neither DeepFace's function nor this one has.
    """
    _refuse_unknown(represent, cluster)
    analysis = Analysis(
        detector=detector_backend, rotate=align, expand_percentage=expand_percentage, max_faces=max_faces,
        whole_frame=not enforce_detection, recogniser=model_name, normalization=normalization,
        anti_spoofing=anti_spoofing and detector_backend != "skip",  # DeepFace's represent ignores it with skip
        eight_bit=detector_backend == "skip",
    )  # fmt: skip
    result = Represented(analysis, l2_normalize, minmax_normalize, return_face)
    return analysis.over(frames, result, every, start, stop, out, cluster)


def analyze(
    frames: Source,
    actions: Sequence[str] = ACTIONS,
    enforce_detection: bool = True,
    detector_backend: str = "opencv",
    align: bool = True,
    expand_percentage: int = 0,
    silent: bool = False,
    anti_spoofing: bool = False,
    *,
    every: int = 1,
    start: float | str | None = None,
    stop: float | str | None = None,
    out: str | Path | None = None,
    **cluster: Any,
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield (rank of the frame, what `DeepFace.analyze` returns for it) for every sampled frame, in order.

    `silent` changes nothing: there are no progress bars here. For the rest see `represent`.
    """
    from deepface.modules.exceptions import UnimplementedError

    _refuse_unknown(analyze, cluster)
    wanted = (actions,) if isinstance(actions, str) else tuple(actions) if isinstance(actions, Iterable) else ()
    if not wanted:
        raise ValueError(f"`actions` must be a list of strings, not {actions!r}.")
    for action in wanted:
        if action not in ACTIONS:
            raise UnimplementedError(f"Invalid action passed ({action!r}). Valid actions are {', '.join(ACTIONS)}.")
    analysis = Analysis(
        detector=detector_backend, rotate=align, expand_percentage=expand_percentage,
        whole_frame=not enforce_detection, attributes=wanted, anti_spoofing=anti_spoofing,
    )  # fmt: skip
    return analysis.over(frames, Analyzed(analysis), every, start, stop, out, cluster)


def find(
    frames: Source,
    db_path: str,
    model_name: str = "VGG-Face",
    distance_metric: str | Callable[..., Any] = "cosine",
    enforce_detection: bool = True,
    detector_backend: str = "opencv",
    align: bool = True,
    similarity_search: bool = False,
    k: int | None = None,
    expand_percentage: int = 0,
    threshold: float | None = None,
    normalization: str = "base",
    silent: bool = False,
    refresh_database: bool = True,
    anti_spoofing: bool = False,
    datastore_format: str = "npz",
    return_type: str | None = None,
    *,
    every: int = 1,
    start: float | str | None = None,
    stop: float | str | None = None,
    out: str | Path | None = None,
    **cluster: Any,
) -> Iterator[tuple[int, list[Any]]]:
    """Yield (rank of the frame, what `DeepFace.find` returns for it) for every sampled frame: one table per face.

    `db_path` is a local folder of pictures. Its faces are embedded once and kept in reelgraph's cache by the content of
    each picture, so `datastore_format` changes nothing. A picture that cannot be read matches no face, as with
    DeepFace, and a warning names it. `return_type`: "pandas" (also None) or "dict". For the rest see `represent`.
    """
    from pipeline.faces.deepface.gallery import Gallery

    _refuse_unknown(find, cluster)
    if not isinstance(distance_metric, str) and threshold is None:
        raise ValueError("Threshold must be specified when using custom distance metrics")
    if return_type not in (None, "pandas", "dict"):
        raise ValueError(f"Unsupported return_type: {return_type}. Options: 'pandas', 'dict'.")
    analysis = Analysis(
        detector=detector_backend, rotate=align, expand_percentage=expand_percentage, recogniser=model_name,
        whole_frame=not enforce_detection, normalization=normalization, anti_spoofing=anti_spoofing,
    )  # fmt: skip
    gallery = Gallery.of_folder(db_path, analysis, refresh_database, silent)
    result = Found(analysis, gallery, distance_metric, threshold, similarity_search, k, as_dicts=return_type == "dict")
    return analysis.over(frames, result, every, start, stop, out, cluster)


def _refuse_unknown(function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raise TypeError for a name among `given` that is not an option of a run, and so not of the function."""
    options = ("executor", "fresh", *ClusterOptions.model_fields)
    for name in given:
        if name not in options:
            own = [one.name for one in inspect.signature(function).parameters.values() if one.kind != one.VAR_KEYWORD]
            raise TypeError(f"{function.__name__}(): {unknown('parameter', name, [*own, *options])}")
