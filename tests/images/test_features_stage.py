"""The stage `features`: EfficientNet-Lite0 and ONNX files of many forms, on arrays and on sequences of pictures."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import pipeline
from pipeline.cli import main
from pipeline.engine.stage import Chunk
from pipeline.engine.workflow import build_workflow
from pipeline.errors import ModelError, WorkflowError
from pipeline.images.stages.features import Features, FeaturesOptions
from pipeline.machine.device import Device
from pipeline.models.card import ModelInfo

COLOURS = np.array([[10, 20, 30], [200, 100, 0], [255, 255, 255], [0, 0, 0], [7, 90, 201]], np.uint8)
"""One per picture; each picture has one colour."""
RAW: dict[str, Any] = {"scale": 1, "mean": 0, "std": 1}
FLOAT, HALF, DOUBLE, BYTE, LONG = (
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8, TensorProto.INT64
)  # fmt: skip
Sizes = Sequence[int | str | None] | None

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write a network that gives, for each picture, the mean of each colour, twice the mean, the pixels, and so on."""

    def write(
        name: str = "net.onnx", shape: Sizes = ("n", 3, 8, 8), kind: int = FLOAT,
        outputs: Sequence[tuple[str, int, Sizes]] = (("means", FLOAT, ("n", 3)),), outside: str = "",
    ) -> Path:  # fmt: skip
        last = shape is not None and len(shape) == 4 and shape[3] == 3 and shape[1] != 3
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        axes = numpy_helper.from_array(np.array([1, 2] if last else [2, 3], np.int64), "axes")
        two = numpy_helper.from_array(np.full(3, 2, dtype), "two")
        if outside:
            onnx.external_data_helper.set_external_data(two, outside)
            (tmp_path / outside).write_bytes(two.raw_data)
        nodes = [
            helper.make_node("ReduceMean", ["x", "axes"], ["means"], keepdims=0),
            helper.make_node("ReduceMean", ["x", "axes"], ["kept"], keepdims=1),
            helper.make_node("Mul", ["means", "two"], ["twice"]),
            helper.make_node("Identity", ["x"], ["pixels"]),
            helper.make_node("ArgMax", ["means"], ["495"], axis=1),
            helper.make_node("ReduceMean", ["means"], ["one"], keepdims=0),
        ]
        made = {name for name, _, _ in outputs}
        if kind == BYTE:
            nodes = [helper.make_node("Cast", ["x"], ["f"], to=FLOAT), helper.make_node(
                "ReduceMean", ["f", "axes"], ["means"], keepdims=0)]  # fmt: skip
        graph = helper.make_graph(
            [node for node in nodes if kind == BYTE or node.output[0] in {*made, "means"}], "net",
            [helper.make_tensor_value_info("x", kind, shape)],
            [helper.make_tensor_value_info(*output) for output in outputs],
            [axes, two],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(model.SerializeToString())
        return path

    return write


def stage(model: Path | str, device: Device = Device(), **options: Any) -> Features:  # noqa: B008
    made = Features(FeaturesOptions.model_validate({"model": str(model), **options}))
    made.load(device)
    return made


def chunk(frames: Any, decoded: Sequence[bool] | None = None) -> Chunk:
    n = len(frames)
    readable = np.ones(n, bool) if decoded is None else np.array(decoded)
    return Chunk("made up", 0, np.arange(n), None, readable, {"frames_rgb": frames})


def pictures(*sizes: tuple[int, int]) -> list[np.ndarray]:
    """Return pictures of the colours, of these sizes in turn."""
    return [np.broadcast_to(colour, (*sizes[index % len(sizes)], 3)).copy() for index, colour in enumerate(COLOURS)]


def feature(made: Features, frames: Any = None, decoded: Sequence[bool] | None = None) -> np.ndarray:
    frames = pictures((40, 30), (9, 100)) if frames is None else frames
    given = chunk(frames, decoded)
    result = made.run(given)
    assert list(result) == ["feature"]
    (array,) = made.outputs
    return array.fit(result["feature"], "features")  # as the engine checks it


@pytest.mark.parametrize(
    ("shape", "kind", "outputs", "options", "expected"),
    [
        (("n", 3, 8, 8), FLOAT, [("means", FLOAT, ("n", 3))], RAW, COLOURS),
        (("n", 8, 8, 3), FLOAT, [("means", FLOAT, ("n", 3))], RAW, COLOURS),
        ((1, 3, 8, 8), FLOAT, [("means", FLOAT, (1, 3))], RAW, COLOURS),
        ((4, 3, 8, 8), FLOAT, [("means", FLOAT, (4, 3))], RAW, COLOURS),  # 5 pictures: the second batch is filled up
        (("n", 3, "h", "w"), FLOAT, [("means", FLOAT, ("n", 3))], {**RAW, "size": 8}, COLOURS),
        (("n", 3, None, None), FLOAT, [("means", FLOAT, ("n", "d"))], {**RAW, "size": [8, 6]}, COLOURS),
        (("n", "c", "h", "w"), FLOAT, [("means", FLOAT, None)], {**RAW, "size": 8, "layout": "NCHW"}, COLOURS),
        (("n", 3, 8, 8), HALF, [("means", HALF, ("n", 3))], RAW, COLOURS),
        (("n", 3, 8, 8), DOUBLE, [("means", DOUBLE, ("n", 3))], RAW, COLOURS),
        (("n", 8, 8, 3), BYTE, [("means", FLOAT, ("n", 3))], {}, COLOURS),
        (("n", 3, 8, 8), FLOAT, [("means", FLOAT, ("n", 3))], {**RAW, "colour": "BGR"}, COLOURS[:, ::-1]),
        (
            ("n", 3, 8, 8), FLOAT, [("means", FLOAT, ("n", 3))], {},
            (COLOURS / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        ),
        (
            ("n", 3, 8, 8), FLOAT, [("means", FLOAT, ("n", 3))], {"colour": "BGR"},
            (COLOURS[:, ::-1] / 255 - [0.406, 0.456, 0.485]) / [0.225, 0.224, 0.229],
        ),
        (
            ("n", 3, 8, 8), FLOAT, [("means", FLOAT, ("n", 3))],
            {"colour": "BGR", "scale": 1, "mean": [103.939, 116.779, 123.68], "std": 1},
            COLOURS[:, ::-1] - [103.939, 116.779, 123.68],
        ),
        (("n", 3, 8, 8), FLOAT, [("twice", FLOAT, ("n", 3)), ("means", FLOAT, ("n", 3))], RAW, 2.0 * COLOURS),
        (
            ("n", 3, 8, 8), FLOAT, [("twice", FLOAT, ("n", 3)), ("means", FLOAT, ("n", 3))],
            {**RAW, "output": "means"}, COLOURS,
        ),
        (
            ("n", 3, 8, 8), FLOAT, [("495", LONG, ("n", 1)), ("means", FLOAT, ("n", 3))], {**RAW, "output": 1}, COLOURS,
        ),
        (("n", 3, 8, 8), FLOAT, [("kept", FLOAT, ("n", 3, 1, 1))], RAW, COLOURS),
        (("n", 3, 8, 8), FLOAT, [("pixels", FLOAT, ("n", 3, 8, 8))], {**RAW, "pooling": "mean"}, COLOURS),
        (("n", 8, 8, 3), FLOAT, [("pixels", FLOAT, ("n", 8, 8, 3))], {**RAW, "pooling": "max"}, COLOURS),
        (("n", 3, 8, 8), FLOAT, [("pixels", FLOAT, ("n", 3, 8, 8))], RAW, np.repeat(COLOURS, 64, axis=1)),
    ],
)  # fmt: skip
def test_forms_of_networks(
    save: Save, device: Device, shape: Sizes, kind: int, outputs: Any, options: dict[str, Any], expected: np.ndarray
) -> None:
    made = stage(save(shape=shape, kind=kind, outputs=outputs), device, **options)
    np.testing.assert_allclose(feature(made), expected, rtol=2e-3 if kind == HALF else 1e-5)


def test_pooling_takes_the_largest_or_the_mean(save: Save) -> None:
    path = save(outputs=[("pixels", FLOAT, ("n", 3, 8, 8))])
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    for pooling, expected in (("mean", picture.mean(axis=(0, 1))), ("max", picture.max(axis=(0, 1)))):
        found = feature(stage(path, pooling=pooling, crop=1, **RAW), [picture])
        np.testing.assert_allclose(found, [expected], rtol=1e-5)


def test_tokens_are_pooled(tmp_path: Path) -> None:
    """A transformer gives (pictures, tokens, components)."""
    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["x", "shape"], ["y"]),
            helper.make_node("Transpose", ["y"], ["t"], perm=[0, 2, 1]),
        ],
        "net",
        [helper.make_tensor_value_info("x", FLOAT, ("n", 3, 8, 8))],
        [helper.make_tensor_value_info("t", FLOAT, ("n", 64, 3))],
        [numpy_helper.from_array(np.array([0, 3, 64], np.int64), "shape")],
    )
    path = tmp_path / "tokens.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    np.testing.assert_allclose(feature(stage(path, pooling="mean", **RAW)), COLOURS, rtol=1e-5)
    assert feature(stage(path, **RAW)).shape == (5, 192)


@pytest.mark.parametrize(
    "form", ["array", "list of one size", "list of sizes", "lazy"],
)  # fmt: skip
def test_arrays_and_sequences(save: Save, device: Device, form: str) -> None:
    frames: Any = pictures((40, 30)) if "sizes" not in form else pictures((40, 30), (9, 100), (8, 8))
    if form == "array":
        frames = np.stack(frames)
    elif form == "lazy":
        frames = Lazy(5)
    made = stage(save(), device, batch=2, **RAW)
    np.testing.assert_allclose(feature(made, frames), COLOURS, rtol=1e-5)
    found = feature(made, frames, [True, False, True, True, False])
    assert np.isnan(found[[1, 4]]).all()
    np.testing.assert_allclose(found[[0, 2, 3]], COLOURS[[0, 2, 3]], rtol=1e-5)
    assert np.isnan(feature(made, frames, [False] * 5)).all()


class Lazy(Sequence[np.ndarray]):
    """Pictures that are decoded when they are asked for; counts how many are in memory."""

    def __init__(self, n: int, unreadable: Sequence[int] = ()) -> None:
        self.n, self.unreadable = n, unreadable
        self.asked: list[int] = []
        self.most = 0
        self._alive: list[weakref.ref[np.ndarray]] = []

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: Any) -> Any:
        assert type(index) is int
        assert index not in self.unreadable
        self.asked.append(index)
        picture = np.broadcast_to(COLOURS[index % 5], (300 + index, 200, 3)).copy()
        self._alive.append(weakref.ref(picture))
        self.most = max(self.most, sum(one() is not None for one in self._alive))
        return picture


def test_pictures_are_decoded_once_and_not_kept(save: Save) -> None:
    gc.collect()
    lazy = Lazy(40, unreadable=[3, 17])
    feature(stage(save(), batch=8, **RAW), lazy, [index not in (3, 17) for index in range(40)])
    assert lazy.asked == [index for index in range(40) if index not in (3, 17)]
    assert lazy.most <= 2  # the one in use, and the next


def test_length_one(save: Save) -> None:
    found = feature(stage(save(), normalise=True, **RAW))
    assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1, 1, 0, 1])  # black has no direction
    np.testing.assert_allclose(found[1], COLOURS[1] / np.linalg.norm(COLOURS[1].astype(float)), rtol=1e-5)


def test_stored_in_half(save: Save) -> None:
    made = stage(save(), dtype="float16", **RAW)
    assert made.outputs[0].dtype == "float16"
    found = feature(made, decoded=[True, True, False, True, True])
    assert found.dtype == np.float16
    assert np.isnan(found[2]).all()
    np.testing.assert_allclose(found[:2], COLOURS[:2], rtol=1e-3)
    with pytest.raises(ModelError, match=r"the component 76500, too large for float16; set dtype: float32"):
        feature(stage(save(), dtype="float16", scale=300, mean=0, std=1))


def test_batches_halve_when_memory_runs_out(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stage(save("tight.onnx"), batch=4, **RAW)
    run, sizes = made.runner._session.run, []

    class Tight:
        def run(self, names: Any, given: dict[str, np.ndarray]) -> Any:
            sizes.append(len(given["x"]))
            if sizes[-1] > 2:
                raise RuntimeError("Failed to allocate memory for requested buffer of size 4096")
            return run(names, given)

    monkeypatch.setattr(made.runner, "_session", Tight())
    np.testing.assert_allclose(feature(made), COLOURS, rtol=1e-5)
    assert sizes == [4, 2, 2, 1]


@pytest.mark.parametrize(("megabytes", "sizes"), [(512, [5]), (33, [2, 2, 1]), (1, [1] * 5)])
def test_large_inputs_run_in_smaller_batches(
    save: Save, megabytes: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stage(save(shape=("n", 3, "h", "w")), Device(batch_memory_bytes=megabytes << 20), size=256, batch=32, **RAW)
    run, asked = made.runner._session.run, []

    class Watched:
        def run(self, names: Any, given: dict[str, np.ndarray]) -> Any:
            asked.append(len(given["x"]))
            return run(names, given)

    monkeypatch.setattr(made.runner, "_session", Watched())
    np.testing.assert_allclose(feature(made), COLOURS, rtol=1e-5)
    assert asked == sizes


GOOD = [("means", FLOAT, ("n", 3))]


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        ({}, {"model": "EfficientNet-Lite1"}, r"unknown model 'EfficientNet-Lite1'; did you mean 'EfficientNet-Lite0'"),
        ({}, {"model": "/nowhere/net.onnx"}, r"model /nowhere/net\.onnx cannot be read: No such file"),
        ({}, {"model": "/"}, r"model / cannot be read: Is a directory"),
        ({}, {"model": "/dev/null"}, r"model /dev/null cannot be read: "),
        ({"shape": ("n", 3, 8)}, {}, r"takes 'x', float32 \(\?, 3, 8\); features needs pictures, 4 dimensions"),
        ({"shape": ("n", 1, 8, 8)}, {}, r"takes 'x', float32 \(\?, 1, 8, 8\), not pictures of 3 colours"),
        ({"kind": LONG}, {}, r"takes 'x', int64 \(\?, 3, 8, 8\); features needs pictures"),
        ({"shape": ("n", 3, 8, 3)}, {}, r"does not say where the colours are; set layout: NCHW"),
        ({"shape": ("n", "c", 8, "w")}, {}, r"does not say where the colours are; set layout: NCHW"),
        ({}, {"layout": "NHWC"}, r"layout NHWC does not fit model .*onnx, which takes 'x', float32 \(\?, 3, 8, 8\)"),
        ({"shape": ("n", 3, "h", "w")}, {}, r"pictures of any size; set size"),
        ({}, {"size": 9}, r"size \[9, 9\] does not fit model .*, which takes 'x', float32 \(\?, 3, 8, 8\)"),
        ({}, {"size": [8, 7]}, r"size \[8, 7\] does not fit model"),
        ({}, {"output": "pooled"}, r"has no output 'pooled'; it has 0: 'means', float32 \(\?, 3\)"),
        ({}, {"output": 1}, r"has no output 1; it has 0: 'means'"),
        ({}, {"output": -1}, r"has no output -1; it has 0: 'means'"),
        ({"outputs": [("495", LONG, ("n", 1)), *GOOD]}, {}, r"output '495', int64 .* is not of .*choose another"),
        ({"outputs": [("495", LONG, ("n", 1)), *GOOD]}, {"output": 495}, r"output '495', int64"),
        ({}, {"pooling": "mean"}, r"pooling mean needs an output of 3 or 4 dimensions, not 'means', .*pooling: none"),
        ({"shape": ("n", 8, 8, 3), "kind": BYTE}, {"mean": 127}, r"takes pixels as they are .*leave out mean, std and"),
        ({"outputs": [("one", FLOAT, None)]}, {}, r"gives 'one' of shape \(\) for 1 pictures, not a row for each"),
    ],
)  # fmt: skip
def test_what_does_not_fit(save: Save, form: dict[str, Any], options: dict[str, Any], message: str) -> None:
    path = save(**form)
    document = {"stages": {"features": {"model": str(path), **options}}}
    with pytest.raises(WorkflowError, match=message) as caught:
        build_workflow("w", document, path.parent)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"<html>404: Not Found</html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"]
)
def test_files_that_are_not_onnx(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"net\.onnx is not an ONNX file"):
        stage(path)


def test_a_network_of_two_inputs(save: Save, tmp_path: Path) -> None:
    model = onnx.load(save())
    model.graph.input.append(helper.make_tensor_value_info("text", LONG, ("n", 77)))
    onnx.save(model, tmp_path / "clip.onnx")
    with pytest.raises(ModelError, match=r"takes 2 inputs \('x', float32 .*; 'text', int64 \(\?, 77\)\); features"):
        stage(tmp_path / "clip.onnx")


def test_a_network_that_onnx_runtime_cannot_run(save: Save, tmp_path: Path) -> None:
    model = onnx.load(save())
    model.graph.node[0].op_type = "Frobnicate"
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot open .*odd\.onnx: .*Frobnicate"):
        stage(tmp_path / "odd.onnx")
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot open .*odd\.onnx: .*Frobnicate"):
        key(tmp_path / "odd.onnx")
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])], "net",
        [helper.make_tensor_value_info("x", FLOAT, ("n", 3, "h", "w"))],
        [helper.make_tensor_value_info("y", FLOAT, ("n", 5, 7))],
        [numpy_helper.from_array(np.array([0, 5, 7], np.int64), "shape")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "odd.onnx")
    assert stage(tmp_path / "odd.onnx", size=8)  # the file says nothing wrong of itself
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot run .*odd\.onnx: .*[Rr]eshape"):
        key(tmp_path / "odd.onnx", size=8)


@pytest.mark.parametrize("rest", [3, -1], ids=["cannot run", "gives one row"])
def test_a_network_of_one_picture_that_claims_more(save: Save, tmp_path: Path, rest: int) -> None:
    """Exporters write a batch of any size, and a graph that only works for the size of their example."""
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["m"]), helper.make_node("Reshape", ["m", "shape"], ["y"])]
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", FLOAT, ("n", 3, 8, 8))],
        [helper.make_tensor_value_info("y", FLOAT, ("n", 3))],
        [numpy_helper.from_array(np.array([1, rest], np.int64), "shape")],
    )  # fmt: skip
    path = tmp_path / "one.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    with pytest.raises(ModelError, match=r"one\.onnx takes one picture at a time; set batch: 1 \("):
        key(path)
    assert key(path, batch=1)


def test_a_run_ends_before_its_first_chunk(
    workflow: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load(tmp_path / "net.onnx")
    model.graph.node[0].op_type = "Frobnicate"
    onnx.save(model, tmp_path / "net.onnx")
    clip, out = data_dir / "videos" / "dec_rot0.mov", tmp_path / "out.zarr"
    named = f"features.model={tmp_path / 'net.onnx'}"
    assert main(["run", str(workflow), str(clip), "--out", str(out), "--set", named]) == 2
    error = capsys.readouterr().err
    assert "reelgraph: ONNX Runtime cannot open" in error
    assert "Frobnicate" in error
    assert not out.exists()


def test_a_file_that_states_another_length(save: Save) -> None:
    path = save(outputs=[("means", FLOAT, ("n", 5))])
    with pytest.raises(ModelError, match=r"gives vectors of 3 components, and its file says 5"):
        key(path)
    made = stage(path, **RAW)
    with pytest.raises(ModelError, match=r"gives vectors of 3 components, and its file says 5"):
        feature(made)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("size", 0, "size must be from 1 to 8192"),
        ("size", [224], "size"),
        ("crop", 0, "crop: input should be greater than 0"),
        ("crop", 1.5, "crop: input should be less than or equal to 1"),
        ("std", 0, "std must be greater than 0"),
        ("mean", [1, 2], "give one number or three"),
        ("mean", float("nan"), "give one number or three"),
        ("resize", "fit", "'shortest', 'stretch' or 'longest'"),
        ("batch", 0, "batch: input should be greater than or equal to 1"),
        ("normalize", True, "unknown option 'normalize'; did you mean 'normalise'"),
    ],
)
def test_options_that_cannot_be(option: str, value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(WorkflowError, match=message):
        build_workflow("w", {"stages": {"features": {option: value}}}, tmp_path)


def key(path: Path | str, **options: Any) -> str:
    document = {"stages": {"features": {"model": str(path), **options}}}
    return build_workflow("w", document, Path.cwd()).keys()["features"]


def test_the_resume_key(save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(outside="weights.bin")
    first = key(path)
    assert key(path, batch=7) == first
    (tmp_path / "moved").mkdir()
    for name in ("net.onnx", "weights.bin"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    assert key(tmp_path / "moved" / "net.onnx") == first  # the content counts, not the place
    monkeypatch.chdir(tmp_path / "moved")
    assert key("net.onnx") == first
    assert key("net.onnx", crop=1) != first
    assert key("net.onnx", normalise=True) != first
    (tmp_path / "moved" / "weights.bin").write_bytes(np.full(3, 5, np.float32).tobytes())
    assert key("net.onnx") != first
    assert key(save(outputs=[("twice", FLOAT, ("n", 3))])) != first


def test_the_key_of_the_default_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another value here would refuse every store of features that users have."""
    monkeypatch.setattr(ModelInfo, "weights_sha256", property(lambda info: f"weights of {info.name}"))
    assert key("EfficientNet-Lite0") == "fbeae82a10585985e64afef14b451987"


def test_a_known_name_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "EfficientNet-Lite0").write_text("notes")
    (tmp_path / "net").write_text("notes")
    monkeypatch.chdir(tmp_path)
    assert FeaturesOptions(model="EfficientNet-Lite0").model == "EfficientNet-Lite0"
    assert FeaturesOptions(model="net").model == str(tmp_path / "net")


def test_weights_beside_the_file(save: Save, tmp_path: Path) -> None:
    path = save(outputs=[("twice", FLOAT, ("n", 3))], outside="weights.bin")
    np.testing.assert_allclose(feature(stage(path, **RAW)), 2.0 * COLOURS, rtol=1e-5)
    np.testing.assert_allclose(feature(stage(path, Device(precision="fp16"), **RAW)), 2.0 * COLOURS, rtol=1e-2)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"net\.onnx keeps weights in .* missing: .*weights\.bin; copy"):
        stage(path)


@pytest.fixture
def workflow(save: Save, tmp_path: Path) -> Path:
    save()
    path = tmp_path / "features.yaml"
    stages = {"features": {"model": "net.onnx", **RAW, "dtype": "float16"}}
    path.write_text(json.dumps({"source": {"kind": "video", "every": 5}, "stages": stages}))
    return path


@pytest.mark.parametrize("executor", ["inline", "dask"])
def test_a_run_over_a_video(
    workflow: Path, data_dir: Path, tmp_path: Path, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of the file is relative
    out = tmp_path / "out.zarr"
    arguments = ["run", str(workflow), str(data_dir / "videos" / "dec_pancake.mkv"), "--out", str(out)]
    assert main([*arguments, "--executor", executor]) == 0
    run = pipeline.open(out)
    stored = run.array("dec_pancake", "feature")
    assert stored.shape == (62, 3)
    assert stored.dtype == np.float16
    import av

    with av.open(str(data_dir / "videos" / "dec_pancake.mkv")) as container:
        frame = next(iter(container.decode(video=0))).to_ndarray(format="rgb24")
    seen = feature(stage(tmp_path / "net.onnx", **RAW), [frame])
    np.testing.assert_allclose(stored[:1], seen, rtol=2e-3, atol=0.5)
    assert stored.astype(np.float64).std(axis=0).min() > 1  # frames differ
    (model,) = run.attributes["models"]
    assert model["name"] == str(tmp_path / "net.onnx")
    assert len(model["weights_sha256"]) == 64
    assert main([*arguments, "--set", "features.batch=1"]) == 0  # nothing to do
    assert main([*arguments, "--set", "features.crop=1"]) == 2


def test_models_of_a_workflow_with_a_file(
    workflow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["models", "verify", str(workflow)]) == 0
    assert main(["models", "verify", "feature"]) == 0
    assert "EfficientNet-Lite0" in capsys.readouterr().out


def test_a_batch_fits_the_device() -> None:
    cpu, gpu = Device(threads=3), Device("cuda")
    assert [FeaturesOptions().most_at_once(device) for device in (Device(), cpu, gpu)] == [2, 6, 32]
    assert [FeaturesOptions(batch=5).most_at_once(device) for device in (cpu, gpu)] == [5, 5]
