"""Distances below which two faces count as one person."""

from __future__ import annotations

DEEPFACE_THRESHOLDS = {
    "VGG-Face": {"cosine": 0.68, "euclidean": 1.17, "euclidean_l2": 1.17, "angular": 0.39},
    "Facenet": {"cosine": 0.40, "euclidean": 10, "euclidean_l2": 0.80, "angular": 0.33},
    "Facenet512": {"cosine": 0.30, "euclidean": 23.56, "euclidean_l2": 1.04, "angular": 0.35},
    "OpenFace": {"cosine": 0.10, "euclidean": 0.55, "euclidean_l2": 0.55, "angular": 0.11},
    "DeepFace": {"cosine": 0.23, "euclidean": 64, "euclidean_l2": 0.64, "angular": 0.12},
    "DeepID": {"cosine": 0.015, "euclidean": 45, "euclidean_l2": 0.17, "angular": 0.04},
    "ArcFace": {"cosine": 0.68, "euclidean": 4.15, "euclidean_l2": 1.13, "angular": 0.39},
    "Dlib": {"cosine": 0.07, "euclidean": 0.6, "euclidean_l2": 0.4, "angular": 0.12},
    "SFace": {"cosine": 0.593, "euclidean": 10.734, "euclidean_l2": 1.055, "angular": 0.36},
    "GhostFaceNet": {"cosine": 0.65, "euclidean": 35.71, "euclidean_l2": 1.10, "angular": 0.38},
    "Buffalo_L": {"cosine": 0.55, "euclidean": 0.6, "euclidean_l2": 1.1, "angular": 0.45},
}
"""Thresholds by recogniser and distance metric (verification.find_distance): DeepFace 0.0.103, config/threshold.py."""

NATIVE_THRESHOLDS = {"Dlib": {"cosine": 0.08, "euclidean": 0.6, "euclidean_l2": 0.4, "angular": 0.128}}
"""Thresholds for `align: native`, by recogniser, as measured by `make accuracy` on labelled photographs, faces from
mtcnn, in-sample. The column "pairs" gives true and false accepts of 509 pairs (259 of two people). For the column
"strangers", each of 62 photographs is searched in a gallery of 67 without its person: the share that is matched.

| distance | threshold | pairs         | strangers |
|----------|-----------|---------------|-----------|
| cosine   | 0.07      | 0.900 / 0     | 0         |
| cosine   | 0.08      | 0.956 / 0     | 0         |
| cosine   | 0.09      | 0.976 / 0.004 | 0.145     |

DeepFace's 0.07 is stricter than native chips need; above 0.08 strangers are matched to people of the gallery.
`euclidean_l2` and `angular` are the same limit by their own formulas; 0.6 is dlib's."""

TWO_VIEWS_THRESHOLDS = {"Dlib": {"cosine": 0.076, "euclidean": 0.583, "euclidean_l2": 0.39, "angular": 0.125}}
"""Thresholds of `align: two_views`. They accept as many pairs of two people as the native thresholds do, on 2,006
photographs of 858 people of LFW (in-sample). Held out, chosen on four fifths of the people and tried on the
others:

| distance  | native threshold | true / false accepts | two_views | true / false accepts |
|-----------|------------------|----------------------|-----------|----------------------|
| cosine    | 0.08             | 0.963 / 0.0030       | 0.076     | 0.976 / 0.0030       |
| euclidean | 0.6              | 0.984 / 0.0065       | 0.583     | 0.991 / 0.0066       |
"""


def thresholds(model: str, align: str) -> dict[str, float]:
    """Return the distances by metric below which two faces count as one person: measured for `align`, or DeepFace's."""
    measured = {"native": NATIVE_THRESHOLDS, "two_views": TWO_VIEWS_THRESHOLDS}.get(align, {})
    return dict(measured.get(model, DEEPFACE_THRESHOLDS[model]))
