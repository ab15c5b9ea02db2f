"""The choice of an implementation of an op, and errors and warnings when one cannot serve."""

from __future__ import annotations

import importlib.util
import runpy
import threading
import warnings

import pytest
import torch

from aurel.ops import backend, knn_graph, numba_support
from aurel.ops.backend import check_backend, resolve_backend, use_backend
from aurel.ops.numba_support import numba_obstacle
from aurel.ops.registration import OPERATORS

CPU = torch.zeros(1)
KNOWN = "auto, definition, torch, numba, triton, pyg"


class OnCuda:
    """Replaces a tensor on a GPU: only its device and dtype are read."""

    device = torch.device("cuda")
    is_cpu, is_cuda = False, True
    dtype = torch.float32


GPU = OnCuda()


def served() -> None:
    """Return None, as for sizes that the kernels serve."""


def too_big() -> str:
    return "N > 4096"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend._Default, "backend", "auto")  # of other threads
    monkeypatch.setattr(backend._default, "backend", "auto")
    monkeypatch.setattr(backend, "_traced", "auto")
    monkeypatch.setattr(backend, "_reported", set())
    monkeypatch.setattr(backend, "triton_obstacle", lambda tensors, sizes, float64: sizes())
    monkeypatch.setattr(numba_support, "MISSING", None)


@pytest.mark.parametrize(
    ("requested", "tensor", "sizes", "chosen"),
    [
        ("auto", CPU, served, "numba"),
        ("auto", CPU, too_big, "numba"),
        ("auto", GPU, served, "triton"),
        ("auto", torch.zeros(1, device="meta"), served, "torch"),
        ("definition", GPU, too_big, "definition"),
        ("torch", GPU, served, "torch"),
        ("torch", CPU, too_big, "torch"),
        ("numba", CPU, too_big, "numba"),
        ("triton", GPU, served, "triton"),
        ("pyg", CPU, too_big, "pyg"),
    ],
)
def test_choice(requested, tensor, sizes, chosen: str) -> None:
    assert resolve_backend("op", requested, (tensor,), sizes, served) == chosen


def test_without_numba_a_cpu_is_served_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba_support, "MISSING", "numba is not installed")
    assert resolve_backend("op", "auto", (CPU,), served) == "torch"
    with pytest.raises(ValueError, match="^op: backend='numba' cannot serve .*: numba is not inst"):
        resolve_backend("op", "numba", (CPU,), served)


def test_an_explicit_backend_that_cannot_serve_is_refused() -> None:
    for requested, tensor, reason in (
        ("triton", GPU, "N > 4096"),
        ("numba", GPU, "the CPU kernels need tensors on a CPU, got cuda"),
        ("numba", CPU.to(torch.float8_e5m2), "the CPU kernels serve .*, got torch.float8_e5m2"),
        ("pyg", CPU, "serves ragged graphs and is not available for dense tensors"),
    ):
        message = f"^op: backend='{requested}' cannot serve this call: {reason}$"
        with pytest.raises(ValueError, match=message):
            resolve_backend("op", requested, (tensor,), too_big)
    with pytest.raises(ValueError, match="^op: backend='pyg' cannot serve this call: N > 4096$"):
        resolve_backend("op", "pyg", (CPU,), served, too_big)


def test_every_tensor_is_checked() -> None:
    assert numba_obstacle((CPU, CPU.double(), CPU.half(), CPU.bfloat16())) is None
    assert numba_obstacle((CPU, CPU.to("meta"))) is not None
    assert numba_obstacle((CPU, CPU.long())) is not None


def test_an_unknown_backend_is_rejected_with_the_known_ones() -> None:
    expected = f"^backend must be one of {KNOWN}, got 'cuda'$"
    with pytest.raises(ValueError, match=expected):
        check_backend("cuda")
    with pytest.raises(ValueError, match=expected):
        resolve_backend("op", "cuda", (CPU,), served)
    with pytest.raises(ValueError, match=expected), use_backend("cuda"):
        raise AssertionError("the block must not run")
    assert resolve_backend("op", "auto", (GPU,), served) == "triton"


def test_use_backend_is_the_default_inside_its_block_only() -> None:
    with use_backend("torch"):
        assert resolve_backend("op", "auto", (GPU,), served) == "torch"
        with use_backend("triton"):
            assert resolve_backend("op", "auto", (GPU,), served) == "triton"
            assert resolve_backend("op", "torch", (CPU,), served) == "torch"
        assert resolve_backend("op", "auto", (GPU,), served) == "torch"
    with pytest.raises(KeyError), use_backend("torch"):
        raise KeyError
    assert resolve_backend("op", "auto", (GPU,), served) == "triton"


def test_use_backend_is_as_strict_as_an_argument() -> None:
    with use_backend("triton"), pytest.raises(ValueError, match="cannot serve this call: N > 4096"):
        resolve_backend("op", "auto", (CPU,), too_big)


def test_use_backend_holds_in_its_thread_alone() -> None:
    inside, outside = threading.Event(), threading.Event()
    chosen = []

    def other() -> None:
        chosen.append(resolve_backend("op", "auto", (GPU,), served))
        with use_backend("definition"):
            inside.set()
            assert outside.wait(10)
            chosen.append(resolve_backend("op", "auto", (GPU,), served))

    thread = threading.Thread(target=other)
    with use_backend("torch"):
        thread.start()
        assert inside.wait(10)
        assert resolve_backend("op", "auto", (GPU,), served) == "torch"
    assert resolve_backend("op", "auto", (GPU,), served) == "triton"
    outside.set()
    thread.join()
    assert chosen == ["triton", "definition"]


def test_a_traced_call_takes_the_default_of_its_block() -> None:
    def call(x: torch.Tensor) -> torch.Tensor:
        return x + (resolve_backend("op", "auto", (x,), served) == "definition")

    compiled = torch.compile(call, fullgraph=True, backend="eager")
    with use_backend("definition"):
        assert compiled(CPU).item() == 1


def test_each_reason_to_fall_back_is_warned_of_once() -> None:
    reasons = ("too big", "too big", "half precision")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for reason in reasons:
            assert resolve_backend("op", "auto", (GPU,), lambda r=reason: r) == "torch"
        resolve_backend("other", "auto", (GPU,), lambda: "too big")
        resolve_backend("op", "torch", (GPU,), lambda: "not called")
        resolve_backend("op", "auto", (CPU,), lambda: "not called")
        assert resolve_backend("has no kernel", "auto", (GPU,)) == "torch"
    assert [str(warning.message) for warning in caught] == [
        "op runs without its Triton kernel: too big",
        "op runs without its Triton kernel: half precision",
        "other runs without its Triton kernel: too big",
    ]


def test_a_compiled_call_falls_back_without_a_graph_break() -> None:
    def call(x: torch.Tensor) -> torch.Tensor:
        return x + (resolve_backend("op", "auto", (GPU,), too_big) == "torch")

    compiled = torch.compile(call, fullgraph=True, backend="eager")
    assert compiled(CPU).item() == 1


def test_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUREL_BACKEND", "torch")
    module = runpy.run_path(backend.__file__)
    assert module["_default"].backend == module["_traced"] == "torch"
    monkeypatch.setenv("AUREL_BACKEND", "fast")
    with pytest.raises(ValueError, match=f"^AUREL_BACKEND must be one of {KNOWN}, got 'fast'$"):
        runpy.run_path(backend.__file__)


def test_the_backend_that_is_chosen_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    x, operator, ran = torch.randn(2, 5, 3), OPERATORS["knn_graph"], []

    def other_lists(*args: object) -> torch.Tensor:
        ran.append(len(args))
        return torch.zeros(2, 5, 2, dtype=torch.int64)

    monkeypatch.setattr("aurel.ops.registration.kernel", lambda backend, name: other_lists)
    assert torch.equal(knn_graph(x, 2, backend="numba"), other_lists())
    assert not torch.equal(knn_graph(x, 2, backend="torch"), other_lists())
    assert ran == [len(operator.arguments._fields) - 1, 0, 0]


@pytest.mark.parametrize(
    ("backend_name", "package"),
    [("triton", "aurel.kernels.triton"), ("numba", "aurel.kernels.cpu")],
)
@pytest.mark.parametrize("name", list(OPERATORS))
def test_every_declared_kernel_has_its_functions(
    name: str, backend_name: str, package: str
) -> None:
    if backend_name not in OPERATORS[name].kernels:
        pytest.skip(f"{name} has no {backend_name} kernel")
    if importlib.util.find_spec(backend_name) is None:
        pytest.skip(f"{backend_name} is not installed")
    base = name.removesuffix("_backward")
    module = importlib.import_module(f"{package}.{base}")
    function = getattr(module, "forward" if base == name else "backward", None)
    assert callable(function), f"{module.__name__} lacks a function for {name}"
    if backend_name == "triton":
        examples = [*module.examples()]
        assert examples, f"{module.__name__} gives no examples"
