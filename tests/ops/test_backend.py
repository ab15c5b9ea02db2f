"""Which implementation serves an op, and what is said when one cannot."""

from __future__ import annotations

import logging
import runpy

import pytest
import torch

from aurel.ops import backend
from aurel.ops.backend import check_backend, resolve_backend, use_backend

CPU = torch.zeros(1)


class OnCuda:
    """Stands for a tensor on a GPU, of which only the device is asked."""

    device = torch.device("cuda")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_default", "auto")
    monkeypatch.setattr(backend, "_reported", set())


@pytest.mark.parametrize(
    ("wanted", "tensor", "obstacle", "served"),
    [
        ("auto", CPU, None, "torch"),
        ("auto", CPU, "too big", "torch"),
        ("auto", OnCuda, None, "triton"),
        ("auto", OnCuda, "too big", "torch"),
        ("torch", OnCuda, None, "torch"),
        ("triton", OnCuda, None, "triton"),
        ("triton", CPU, None, "triton"),
    ],
)
def test_choice(wanted, tensor, obstacle: str | None, served: str) -> None:
    assert resolve_backend("op", wanted, tensor, obstacle) == served


def test_explicit_backend_that_cannot_serve_says_why() -> None:
    with pytest.raises(ValueError, match=r"^op: backend='triton' cannot serve .*: N > 4096$"):
        resolve_backend("op", "triton", OnCuda, "N > 4096")
    with pytest.raises(ValueError, match=r"^op: backend='pyg' serves ragged graphs"):
        resolve_backend("op", "pyg", CPU, None)


def test_unknown_backend_lists_the_known() -> None:
    wanted = r"backend must be one of auto, torch, triton, pyg, got 'cuda'"
    with pytest.raises(ValueError, match=wanted):
        check_backend("cuda")
    with pytest.raises(ValueError, match=wanted):
        resolve_backend("op", "cuda", CPU, None)
    with pytest.raises(ValueError, match=wanted), use_backend("cuda"):
        raise AssertionError("the block must not run")
    assert resolve_backend("op", "auto", CPU, None) == "torch"


def test_use_backend_is_the_default_inside_its_block_only() -> None:
    with use_backend("torch"):
        assert resolve_backend("op", "auto", OnCuda, None) == "torch"
        with use_backend("triton"):
            assert resolve_backend("op", "auto", CPU, None) == "triton"
            assert resolve_backend("op", "torch", CPU, None) == "torch"
        assert resolve_backend("op", "auto", OnCuda, None) == "torch"
    with pytest.raises(KeyError), use_backend("torch"):
        raise KeyError
    assert resolve_backend("op", "auto", OnCuda, None) == "triton"


def test_use_backend_is_as_strict_as_an_argument() -> None:
    with use_backend("triton"), pytest.raises(ValueError, match="cannot serve this call: no GPU"):
        resolve_backend("op", "auto", CPU, "no GPU")


def test_fallback_is_logged_once_for_each_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "aurel")
    for reason in ("too big", "too big", "half precision"):
        resolve_backend("op", "auto", OnCuda, reason)
    resolve_backend("op", "auto", CPU, "too big")
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "op: falling back to torch: too big",
        "op: falling back to torch: half precision",
    ]


def test_compiled_call_falls_back_without_a_graph_break() -> None:
    def call(x: torch.Tensor) -> torch.Tensor:
        return x + (resolve_backend("op", "auto", OnCuda, "too big") == "torch")

    compiled = torch.compile(call, fullgraph=True, backend="eager")
    assert compiled(CPU).item() == 1


def test_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUREL_BACKEND", "torch")
    assert runpy.run_path(backend.__file__)["_default"] == "torch"
    monkeypatch.setenv("AUREL_BACKEND", "fast")
    with pytest.raises(ValueError, match="AUREL_BACKEND must be one of auto, .*, got 'fast'"):
        runpy.run_path(backend.__file__)
