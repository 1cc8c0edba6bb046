"""Facts of every model by its DeepFace name: its kind, its input, the source of its weights. Loads nothing.

Names, sizes and addresses are those of DeepFace 0.0.103 (deepface/modules/modeling.py and the clients it names), which
a test compares; DeepFace lacks those in OWN. Licences are those of the weights' publishers; `licence_source` says where
they are written, and names the doubts. Hashes and sizes are those of the publisher's own files: Git LFS pointers
(opencv_zoo) and pip packages. If neither exists (centerface, ssd), they are those on which projects that pin the same
address agree.
"""

from __future__ import annotations

from typing import Literal

from pipeline.errors import ModelError
from pipeline.models.card import ModelCard, Packaged, WeightsFile
from pipeline.text import unknown

Kind = Literal["detector", "recogniser", "attribute", "spoofing"]

RELEASES = (
    "https://github.com/serengil/deepface_models/releases/download/v1.0/",
    "https://huggingface.co/serengil/deepface/resolve/main/",
)
"""Addresses of DeepFace's published weights; the second is its backup of the first."""


def _released(name: str) -> tuple[WeightsFile]:
    return (WeightsFile(name, tuple(base + name for base in RELEASES)),)


def _published(url: str, sha256: str = "", size_bytes: int = 0) -> WeightsFile:
    return WeightsFile(url.rpartition("/")[2], (url,), None, sha256, size_bytes)


_YOLO_LICENCE = (
    "ultralytics, whose library trained and runs them, claims AGPL-3.0 for such weights (ultralytics/ultralytics issue "
    "14297); YapaLab/yolo-face's README says GPL-3.0 or an Enterprise licence; derronqi/yolov8-face (yolov8n) says none"
)
_ONE_PER_CALL = "DeepFace's client takes one image per call"


def _yolo(name: str, url: str) -> ModelCard:
    return ModelCard(
        name, "detector", "AGPL-3.0", (WeightsFile(f"{name}-face.pt", (url,)),), engine="ultralytics",
        requires=("ultralytics",), one_at_a_time=_ONE_PER_CALL, licence_source=_YOLO_LICENCE,
    )  # fmt: skip


_YAPA = "https://github.com/YapaLab/yolo-face/releases/download/1.0.0/"
_AKANAMETOV = "https://github.com/akanametov/yolo-face/releases/download/1.0.0/"
_OPENCV_ZOO = "https://github.com/opencv/opencv_zoo/raw/main/models/"
_MINIVISION = "https://github.com/minivision-ai/Silent-Face-Anti-Spoofing/raw/master/resources/anti_spoof_models/"

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
GENDERS = ("Woman", "Man")
RACES = ("asian", "indian", "black", "white", "middle eastern", "latino hispanic")
LIVENESS = ("2D spoof", "real", "3D spoof")
"""Classes of Fasnet: github.com/minivision-ai/Silent-Face-Anti-Spoofing, issues 46 and 55."""


def _cascade(name: str, sha256: str, size_bytes: int) -> WeightsFile:
    url = f"https://github.com/opencv/opencv/raw/4.9.0/data/haarcascades/{name}"
    packaged = Packaged("cv2", f"data/{name}", '"opencv-contrib-python-headless<5"')
    return WeightsFile(name, (url,), packaged, sha256, size_bytes)


_HAAR_CASCADES = (
    _cascade("haarcascade_frontalface_default.xml",
             "0f7d4527844eb514d4a4948e822da90fbb16a34a0bbbbc6adc6498747a5aafb0", 930_127),
    _cascade("haarcascade_eye.xml", "71cc64fc305a355dc60067880f6fbbd43dd155bd63ee3844661a1bda34b2fd8c", 341_406),
)  # fmt: skip
"""Cascades of faces and eyes. OpenCV 4 carries them; for other versions they are downloaded."""

_MTCNN = tuple(
    WeightsFile(f"{net}.lz4", packaged=Packaged("mtcnn", f"assets/weights/{net}.lz4", "mtcnn"))
    for net in ("pnet", "rnet", "onet")
)
_MTCNN_LICENCE = (
    "ipazc/mtcnn LICENSE, and kpzhang93/MTCNN_face_detection_alignment, from which the weights come; the package's "
    "author in ipazc/mtcnn issue 53: trained on pictures for research, the weights should not be used commercially"
)

_YUNET = _published(
    _OPENCV_ZOO + "face_detection_yunet/face_detection_yunet_2023mar.onnx",
    "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4", 232_589,
)  # fmt: skip
_YUNET_LICENCE = "opencv_zoo, models/face_detection_yunet/README.md: all files in this directory"


def _face_recognition_models(name: str, sha256: str, size_bytes: int) -> WeightsFile:
    packaged = Packaged("face_recognition_models", f"models/{name}", "face_recognition_models")
    return WeightsFile(name, (f"https://dlib.net/files/{name}.bz2",), packaged, sha256, size_bytes, "bz2")


DETECTORS = (
    ModelCard("mtcnn", "detector", "MIT", _MTCNN, licence_source=_MTCNN_LICENCE),
    ModelCard("fastmtcnn", "detector", "MIT", _MTCNN, licence_source=_MTCNN_LICENCE),
    ModelCard(
        "retinaface", "detector", "MIT", _released("retinaface.onnx"),
        licence_source="serengil/retinaface LICENSE, as DeepFace's README names it; weights by way of "
        "StanislasBertrand/RetinaFace-tf2 (serengil/retinaface issue 10)",
    ),
    ModelCard("yunet", "detector", "MIT", (_YUNET,), licence_source=_YUNET_LICENCE),
    ModelCard(
        "yunet-mtcnn", "detector", "MIT", (_YUNET, *_MTCNN), licence_source=f"{_YUNET_LICENCE}; {_MTCNN_LICENCE}"
    ),
    ModelCard(
        "centerface", "detector", "MIT",
        (_published("https://github.com/Star-Clouds/CenterFace/raw/master/models/onnx/centerface.onnx",
                    "77e394b51108381b4c4f7b4baf1c64ca9f4aba73e5e803b2636419578913b5fe", 7_532_772),),
        licence_source="Star-Clouds/CenterFace issue 39, its authors: code and models are all MIT",
    ),
    ModelCard(
        "opencv", "detector", "BSD-3-Clause (Intel's)", _HAAR_CASCADES, engine="opencv",
        one_at_a_time="a cascade scans one picture",
        licence_source="the head of both files: Intel License Agreement For Open Source Computer Vision Library",
    ),
    ModelCard(
        "ssd", "detector", "BSD-3-Clause",
        (
            _published("https://github.com/opencv/opencv/raw/3.4.0/samples/dnn/face_detector/deploy.prototxt"),
            _published("https://github.com/opencv/opencv_3rdparty/raw/dnn_samples_face_detector_20170830/"
                       "res10_300x300_ssd_iter_140000.caffemodel",
                       "2a56a11a57a4a295956b0660b4a3d76bbdca2206c4961cea8efe7d95c7cb2f2d", 10_666_211),
        ),
        engine="opencv", input_size=(300, 300), one_at_a_time=_ONE_PER_CALL,
        licence_source="OpenCV 3.4's LICENSE, whose sample it is; opencv_3rdparty, where the weights lie, says nothing",
    ),
    ModelCard(
        "dlib", "detector", "BSL-1.0 (detector), CC0-1.0 (landmarks)",
        (_face_recognition_models("shape_predictor_5_face_landmarks.dat",
                                  "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888", 9_150_489),),
        engine="dlib", requires=("dlib-bin",), one_at_a_time="dlib's HOG detector scans one picture",
        licence_source="davisking/dlib LICENSE.txt; davisking/dlib-models README: released into the public domain",
    ),
    ModelCard(
        "mediapipe", "detector", "Apache-2.0", (), engine="mediapipe", requires=("mediapipe",),
        one_at_a_time=_ONE_PER_CALL, licence_source="google/mediapipe LICENSE, as DeepFace's README names it",
    ),
    _yolo("yolov8n", "https://drive.google.com/uc?id=1qcr9DbgsX3ryrz2uU8w4Xm3cOrRywXqb"),
    _yolo("yolov8m", _YAPA + "yolov8m-face.pt"),
    _yolo("yolov8l", _YAPA + "yolov8l-face.pt"),
    _yolo("yolov11n", _AKANAMETOV + "yolov11n-face.pt"),
    _yolo("yolov11s", _AKANAMETOV + "yolov11s-face.pt"),
    _yolo("yolov11m", _AKANAMETOV + "yolov11m-face.pt"),
    _yolo("yolov11l", _YAPA + "yolov11l-face.pt"),
    _yolo("yolov12n", _YAPA + "yolov12n-face.pt"),
    _yolo("yolov12s", _YAPA + "yolov12s-face.pt"),
    _yolo("yolov12m", _YAPA + "yolov12m-face.pt"),
    _yolo("yolov12l", _YAPA + "yolov12l-face.pt"),
)  # fmt: skip


def _recogniser(
    name: str, dimension: int, size: tuple[int, int], licence: str, weights: tuple[WeightsFile], source: str
) -> ModelCard:
    return ModelCard(name, "recogniser", licence, weights, input_size=size, dimension=dimension, licence_source=source)


_FACENET_LICENCE = "davidsandberg/facenet LICENSE.md, which DeepFace's README names for both"

RECOGNISERS = (
    _recogniser(
        "VGG-Face", 4096, (224, 224), "non-commercial research", _released("vgg_face_weights.onnx"),
        "rcmalli/keras-vggface README on Oxford's originals: for non-commercial research under a Creative Commons "
        "Attribution licence; DeepFace's author in issue 136: restricted for commercial use",
    ),
    _recogniser("Facenet", 128, (160, 160), "MIT", _released("facenet_weights.onnx"), _FACENET_LICENCE),
    _recogniser("Facenet512", 512, (160, 160), "MIT", _released("facenet512_weights.onnx"), _FACENET_LICENCE),
    _recogniser(
        "OpenFace", 128, (96, 96), "Apache-2.0", _released("openface_weights.onnx"),
        "cmusatyalab/openface README: source code and trained models; converted in iwantooxxoox/Keras-OpenFace",
    ),
    _recogniser(
        "DeepFace", 4096, (152, 152), "MIT", _released("VGGFace2_DeepFace_weights_val-0.9034.onnx"),
        "swghosh/DeepFace LICENSE; trained on VGGFace2, whose pictures have terms of their own",
    ),
    _recogniser(
        "DeepID", 160, (47, 55), "MIT", _released("deepid_weights.onnx"),
        "ruoyiran/DeepID LICENSE.md, as DeepFace's README names it",
    ),
    _recogniser(
        "ArcFace", 512, (112, 112), "MIT", _released("arcface_weights.onnx"),
        "leondgarse/Keras_insightface LICENSE (issue 23); its author in issue 133: the pictures it was trained on are "
        "for non-commercial use",
    ),
    _recogniser(
        "Dlib", 128, (150, 150), "CC0-1.0",
        (_face_recognition_models("dlib_face_recognition_resnet_model_v1.dat",
                                  "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30", 22_466_066),),
        "davisking/dlib-models README: released into the public domain; face_recognition_models: or under CC0 1.0",
    ),
    _recogniser(
        "SFace", 128, (112, 112), "Apache-2.0",
        (_published(_OPENCV_ZOO + "face_recognition_sface/face_recognition_sface_2021dec.onnx",
                    "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79", 38_696_353),),
        "opencv_zoo, models/face_recognition_sface/README.md: all files in this directory",
    ),
    _recogniser(
        "GhostFaceNet", 512, (112, 112), "MIT", _released("ghostfacenet_v1.onnx"),
        "HamadYA/GhostFaceNets LICENSE; its author on the weights, in issue 23: as the paper, CC BY or CC BY-NC-ND",
    ),
    _recogniser(
        "Buffalo_L", 512, (112, 112), "non-commercial research",
        (WeightsFile("buffalo_l/webface_r50.onnx", (
            "https://drive.google.com/uc?export=download&confirm=pbef&id=1N0GL-8ehw_bz2eZQWz2b0A5XBdXdxZhg",)),),
        "deepinsight/insightface README: models are available for non-commercial research purposes only",
    ),
)  # fmt: skip


def _attribute(
    name: str, size: tuple[int, int], file: str, licence: str, source: str, classes: tuple[str, ...] = ()
) -> ModelCard:
    weights = _released(file)
    return ModelCard(name, "attribute", licence, weights, input_size=size, classes=classes, licence_source=source)


_FROM_VGG_FACE = (
    "non-commercial research",
    "DeepFace's README: trained on the backbone of VGG-Face with transfer learning, whose licence they inherit",
)

ATTRIBUTES = (
    _attribute("Age", (224, 224), "age_model_weights.onnx", *_FROM_VGG_FACE),
    _attribute("Gender", (224, 224), "gender_model_weights.onnx", *_FROM_VGG_FACE, GENDERS),
    _attribute(
        "Emotion", (48, 48), "facial_expression_model_weights.onnx", "MIT",
        "DeepFace's LICENSE; it names no other for this network of its author", EMOTIONS,
    ),
    _attribute("Race", (224, 224), "race_model_single_batch.onnx", *_FROM_VGG_FACE, RACES),
)  # fmt: skip

SPOOFING = (
    ModelCard(
        "Fasnet", "spoofing", "Apache-2.0",
        (
            _published(_MINIVISION + "2.7_80x80_MiniFASNetV2.pth",
                       "a5eb02e1843f19b5386b953cc4c9f011c3f985d0ee2bb9819eea9a142099bec0", 1_849_453),
            _published(_MINIVISION + "4_0_0_80x80_MiniFASNetV1SE.pth",
                       "84ee1d37d96894d5e82de5a57df044ef80a58be2b218b5ed7cdfd875ec2f5990", 1_856_130),
        ),
        input_size=(80, 80), classes=LIVENESS, licence_source="minivision-ai/Silent-Face-Anti-Spoofing LICENSE",
    ),
)  # fmt: skip

OWN = ("yunet-mtcnn",)
"""Models that DeepFace does not have, so that `align: deepface` does not support them."""
CARDS = {card.name: card for card in (*DETECTORS, *RECOGNISERS, *ATTRIBUTES, *SPOOFING)}
KIND_NAMES = {
    "detector": "detector", "recogniser": "embedder", "attribute": "attribute", "spoofing": "anti-spoofing model",
}  # fmt: skip


def names(kind: Kind) -> tuple[str, ...]:
    return tuple(card.name for card in CARDS.values() if card.kind == kind)


def card(name: str, kind: Kind | None = None) -> ModelCard:
    """Return the card of a model. Raises ModelError, with the nearest valid name, if there is none (of that kind)."""
    valid = names(kind) if kind else tuple(CARDS)
    if name not in valid:
        raise ModelError(unknown(KIND_NAMES[kind] if kind else "model", name, valid))
    return CARDS[name]
