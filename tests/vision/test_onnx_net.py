"""Rewrite small ONNX files, and run them from threads, copies and forked processes."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx

from aurel.vision.onnx_net import OnnxNet, with_constants, with_free_sizes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Write a net x -> 3 x with the shape (10, 3, 300), whose weight is also an input."""
    from onnx import TensorProto, helper

    shape = (10, 3, 300)
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", "y"))
    weight = helper.make_tensor("w", TensorProto.FLOAT, (1,), [3.0])
    as_input = helper.make_tensor_value_info("w", TensorProto.FLOAT, (1,))
    node = helper.make_node("Mul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "triple", [x, as_input], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    target = tmp_path / "triple.onnx"
    target.write_bytes(model.SerializeToString())
    return target


def sizes(content: bytes, part: str) -> list[int]:
    (first, *_) = getattr(onnx.load_from_string(content).graph, part)
    return [dimension.dim_value for dimension in first.type.tensor_type.shape.dim]


def test_free_dimensions_have_no_size_and_the_other_sizes_stay(path: Path) -> None:
    content = path.read_bytes()
    changed = with_free_sizes(content, (0, 2))
    assert len(changed) == len(content)
    assert sizes(changed, "input") == sizes(changed, "output") == [0, 3, 0]
    onnx.checker.check_model(onnx.load_from_string(changed))
    assert with_free_sizes(content, ()) == content


def test_weights_are_no_inputs(path: Path) -> None:
    graph = onnx.load_from_string(with_constants(path.read_bytes())).graph
    assert [item.name for item in graph.input] == ["x"]
    assert [item.name for item in graph.initializer] == ["w"]


@pytest.mark.parametrize("shape", [(10, 3, 300), (1, 3, 7), (2, 3, 1)])
def test_any_size_is_taken(path: Path, shape: tuple[int, ...]) -> None:
    x = np.random.rand(*shape).astype(np.float32)
    (y,) = OnnxNet(path, free=(0, 2))(x)
    np.testing.assert_allclose(y, 3 * x)


def run(net: OnnxNet) -> float:
    return float(net(np.ones((1, 3, 2), dtype=np.float32))[0].sum())


def test_copies_threads_and_forks_give_the_same(path: Path) -> None:
    net = OnnxNet(path, free=(0, 2))
    assert run(net) == 18
    assert run(pickle.loads(pickle.dumps(net))) == 18
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, [net] * 16)) == [18.0] * 16
    with multiprocessing.get_context("fork").Pool(1) as processes:
        assert processes.apply_async(run, (net,)).get(timeout=20) == 18
