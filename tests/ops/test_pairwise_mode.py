"""`pairwise_mode`: the best of all states of binary nodes."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from helpers.every_backend import every_backend
from torch import Tensor

from aurel.ops.pairwise_marginals import pairwise_energies
from aurel.ops.pairwise_mode import pairwise_mode


def model(batch: int, nodes: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    fields = scale * torch.randn(batch, nodes, dtype=torch.float64)
    return fields, scale * torch.randn(nodes, nodes, dtype=torch.float64)


def whole_model(batch: int, nodes: int) -> tuple[Tensor, Tensor]:
    """Return a model of small whole numbers, in which many states are equally likely."""
    fields = torch.randint(-2, 3, (batch, nodes))
    return fields.float(), 2 * torch.randint(-1, 2, (nodes, nodes)).float()


def number(mode: Tensor) -> Tensor:
    return (mode * 2 ** torch.arange(mode.shape[1])).sum(1)


@every_backend
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("nodes", range(1, 13))
def test_equals_the_first_of_all_states(nodes: int, masked: bool, backend: str) -> None:
    mask = torch.rand(6, nodes) < 0.6 if masked else None
    for given in (model(6, nodes), model(6, nodes, 3000.0), whole_model(6, nodes)):
        expected = pairwise_energies(*given, mask).argmax(1)
        found = pairwise_mode(*given, mask=mask, backend=backend)
        assert found.dtype == torch.bool and found.shape == (6, nodes)
        assert torch.equal(number(found), expected)


@every_backend
def test_of_equally_likely_states_the_first_is_the_mode(backend: str) -> None:
    assert not pairwise_mode(torch.zeros(2, 5), torch.zeros(5, 5), backend=backend).any()
    fields = torch.tensor([[-1.0, 1, 1, 0]])
    couplings = torch.zeros(4, 4)
    couplings[1, 2] = couplings[2, 1] = -1
    found = pairwise_mode(fields, couplings, backend=backend)
    assert found.tolist() == [[False, True, False, False]]


@every_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes_and_strides(dtype: torch.dtype, backend: str) -> None:
    fields, couplings = (part.to(dtype) for part in model(4, 6))
    want = pairwise_mode(fields.double(), couplings.double(), backend="definition")
    leaf = fields.T.contiguous().T.requires_grad_()
    found = pairwise_mode(leaf, couplings.T.contiguous().T, backend=backend)
    assert torch.equal(found, want) and not found.requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pairwise_mode(fields, couplings, backend=backend), want)


@every_backend
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_in_its_sample(value: float, backend: str) -> None:
    fields, couplings = model(3, 6)
    want = pairwise_mode(fields, couplings, backend=backend)
    fields[1, 2] = value
    found = pairwise_mode(fields, couplings.fill_diagonal_(torch.nan), backend=backend)
    assert torch.equal(found[[0, 2]], want[[0, 2]])


@every_backend
@pytest.mark.parametrize("size", [(0, 4), (3, 0), (0, 0)], ids=str)
def test_empty(size: tuple[int, int], backend: str) -> None:
    assert pairwise_mode(*model(*size), backend=backend).shape == size


def test_blocks_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    fields, couplings = model(3, 7)
    expected = pairwise_energies(fields, couplings).argmax(1)
    for block in (3, 100, 10**6):
        monkeypatch.setattr(import_module("aurel.ops.pairwise_mode"), "_BLOCK", block)
        assert torch.equal(number(pairwise_mode(fields, couplings, backend="torch")), expected)


def test_a_compiled_and_an_exported_program_are_exact() -> None:
    class Layer(torch.nn.Module):
        def forward(self, fields: Tensor, couplings: Tensor) -> Tensor:
            return pairwise_mode(fields, couplings)

    given = model(3, 5)
    expected = Layer()(*given)
    assert torch.equal(
        torch.compile(Layer(), backend="aot_eager", fullgraph=True)(*given), expected
    )
    assert torch.equal(torch.export.export(Layer(), given).module()(*given), expected)
