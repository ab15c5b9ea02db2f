"""PairwiseInference against sums over all label combinations in numpy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from aurel.data.synthetic import label_world
from aurel.layers import PairwiseInference
from aurel.layers.pairwise_blocks import coupled_blocks, even_blocks

NODES = 5


def random_layer(nodes: int = NODES, scale: float = 1.0, **options) -> PairwiseInference:
    layer = PairwiseInference(nodes, **options).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=scale)
    return layer


def states(nodes: int = NODES) -> np.ndarray:
    return np.array(list(product((0, 1), repeat=nodes)))


def probabilities_of_states(layer: PairwiseInference, logits: Tensor) -> np.ndarray:
    """Of one sample (N,), by the equation."""
    fields = (logits + layer.bias).detach().numpy()
    couplings = layer.couplings.detach().numpy()
    energies = [
        sum(fields[i] * y[i] for i in range(len(y)))
        + sum(
            (couplings[i, j] + couplings[j, i]) / 2 * y[i] * y[j]
            for j in range(len(y))
            for i in range(j)
        )
        for y in states(len(fields))
    ]
    weights = np.exp(np.array(energies) - max(energies))
    return weights / weights.sum()


def test_a_new_layer_is_the_identity() -> None:
    logits = torch.randn(7, 12) * 30
    layer = PairwiseInference(12)
    torch.testing.assert_close(layer(logits), logits, rtol=1e-6, atol=1e-6)
    assert list(layer.state_dict()) == ["bias", "couplings"]
    assert layer.couplings.shape == (12, 12) and not layer.couplings.any()


def test_logits_are_those_of_the_marginals() -> None:
    layer, logits = random_layer(), torch.randn(4, NODES, dtype=torch.float64)
    expected = np.stack([probabilities_of_states(layer, each) @ states() for each in logits])
    np.testing.assert_allclose(layer.probabilities(logits).detach(), expected, rtol=1e-10)
    coupled = layer(logits).detach().numpy()
    np.testing.assert_allclose(coupled, np.log(expected / (1 - expected)), rtol=1e-9, atol=1e-12)


def test_any_leading_dimensions() -> None:
    layer, logits = random_layer(), torch.randn(2, 3, 4, NODES, dtype=torch.float64)
    mask = torch.rand(logits.shape) < 0.7
    labels = torch.randint(-1, 2, logits.shape)
    out, graph = layer(logits, mask, return_graph=True)
    flat = logits.flatten(0, 2)
    torch.testing.assert_close(out.flatten(0, 2), layer(flat, mask.flatten(0, 2)))
    assert graph.weights.shape == (24, NODES, NODES)
    losses = layer.nll(logits, labels, reduction="none")
    assert losses.shape == (2, 3, 4)
    torch.testing.assert_close(losses.mean(), layer.nll(flat, labels.flatten(0, 2)))
    torch.testing.assert_close(losses.sum(), layer.nll(logits, labels, reduction="sum"))
    assert layer.condition(logits, labels).shape == logits.shape
    assert layer.sample(logits, 3).shape == (3, *logits.shape)


def test_an_absent_node_has_no_logit_and_no_edge() -> None:
    layer, logits = random_layer(), torch.randn(2, NODES, dtype=torch.float64)
    mask = torch.tensor([[True, False, True, True, False], [True] * 5])
    logits[0, 1] = torch.nan
    out, graph = layer(logits, mask, return_graph=True)
    kept = torch.tensor([0, 2, 3])
    small = PairwiseInference(3).double()
    with torch.no_grad():
        small.bias.copy_(layer.bias[kept])
        small.couplings.copy_(layer.couplings[kept][:, kept])
    torch.testing.assert_close(out[:1, kept], small(logits[:1, kept]))
    assert not out[0, [1, 4]].any() and not layer.probabilities(logits, mask)[0, [1, 4]].any()
    assert torch.equal(graph.weights[1], layer.graph().weights[0])
    assert torch.equal(graph.weights[0][kept][:, kept], small.graph().weights[0])
    assert graph.weights[0].count_nonzero() == 6


def test_the_graph_is_symmetric() -> None:
    layer = random_layer()
    weights = layer.graph().adjacency()[0]
    expected = ((layer.couplings + layer.couplings.T) / 2).detach().fill_diagonal_(0)
    torch.testing.assert_close(weights, expected)


def test_likelihoods_of_all_combinations_add_to_one() -> None:
    layer, logits = random_layer(), torch.randn(NODES, dtype=torch.float64)
    every = torch.from_numpy(states())
    rows = logits.expand(len(every), -1)
    likelihoods = (-layer.nll(rows, every, reduction="none")).exp().detach()
    np.testing.assert_allclose(likelihoods, probabilities_of_states(layer, logits), rtol=1e-10)


@given(labels=st.lists(st.integers(-1, 1), min_size=NODES, max_size=NODES))
def test_unknown_labels_are_summed_out(labels: list[int]) -> None:
    torch.manual_seed(1)
    layer, logits = random_layer(), torch.randn(NODES, dtype=torch.float64)
    known = torch.tensor([labels])
    fits = ((states() == np.array(labels)) | (np.array(labels) < 0)).all(1)
    table = probabilities_of_states(layer, logits) * fits
    loss = layer.nll(logits[None], known).detach()
    np.testing.assert_allclose(loss, -np.log(table.sum()), rtol=1e-9, atol=1e-12)
    given_known = layer.condition(logits[None], known)[0].detach()
    np.testing.assert_allclose(given_known, table @ states() / table.sum(), rtol=1e-9, atol=1e-12)


def test_labels_must_be_a_tensor() -> None:
    layer, logits = random_layer(), torch.zeros(1, NODES)
    for compute in (layer.nll, layer.condition):
        with pytest.raises(TypeError, match="(labels|known) must be a torch.Tensor"):
            compute(logits, [[1] * NODES])


def test_gradients_of_the_likelihood() -> None:
    layer = random_layer(4)
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[1, 0, -1, 1], [-1, -1, -1, -1], [0, 1, 1, 0]])

    def loss(logits: Tensor, bias: Tensor, couplings: Tensor) -> Tensor:
        given = {"bias": bias, "couplings": couplings}
        return torch.func.functional_call(Loss(layer), {f"layer.{k}": v for k, v in given.items()},
                                          (logits, labels))  # fmt: skip

    assert torch.autograd.gradcheck(loss, (logits, layer.bias, layer.couplings))
    (grad,) = torch.autograd.grad(loss(logits, layer.bias, layer.couplings), logits)
    assert not grad[1].any() and grad[[0, 2]].all()


class Loss(torch.nn.Module):
    def __init__(self, layer: PairwiseInference) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.layer.nll(logits, labels)


def test_half_precision_and_autocast_are_computed_in_float32() -> None:
    split = {"num_exact": 3, "blocks": [[0, 1], [2, 3, 4]]}
    logits, labels = torch.randn(3, NODES).bfloat16(), torch.randint(-1, 2, (3, NODES))
    for layer in (random_layer().float(), random_layer(**split).float()):

        def results(logits: Tensor, layer: PairwiseInference = layer) -> list[Tensor]:
            return [layer(logits), layer.nll(logits, labels), layer.condition(logits, labels)]

        with torch.autocast("cpu", torch.bfloat16):
            mixed = results(logits)
        for got in (mixed, results(logits)):
            for out, want in zip(got, results(logits.float()), strict=True):
                assert out.dtype == torch.float32
                torch.testing.assert_close(out, want)


def test_samples_have_the_probabilities_of_the_states() -> None:
    layer, logits = random_layer(3), torch.randn(3, dtype=torch.float64)
    count = 40_000
    found = layer.sample(logits[None], count, torch.Generator().manual_seed(0))[:, 0]
    assert found.dtype == torch.bool
    number = (found * torch.tensor([4, 2, 1])).sum(1)
    share = torch.bincount(number, minlength=8) / count
    expected = probabilities_of_states(layer, logits)
    assert np.abs(share.numpy() - expected).max() < 4 * (0.25 / count) ** 0.5
    again = layer.sample(logits[None], count, torch.Generator().manual_seed(0))[:, 0]
    assert torch.equal(found, again)


def test_parameter_groups_learn_faster_and_do_not_decay() -> None:
    layer = random_layer()
    (group,) = layer.parameter_groups(0.01)
    assert group == {"params": [*layer.parameters()], "lr": 0.1, "weight_decay": 0.0}
    assert layer.parameter_groups(0.01, factor=3)[0]["lr"] == 0.03
    torch.optim.AdamW(layer.parameter_groups(1e-3))


def label_table(rows: int, nodes: int = 4) -> Tensor:
    torch.manual_seed(2)
    layer = random_layer(nodes)
    return layer.sample(torch.zeros(1, nodes), rows, torch.Generator().manual_seed(1))[:, 0].long()


def moments(labels: Tensor) -> Tensor:
    labels = labels.double()
    return labels.T @ labels / len(labels)


def test_a_fit_has_the_moments_of_the_labels() -> None:
    labels = label_table(500)
    layer = PairwiseInference(4).double()
    fit = layer.fit_labels(labels, ridge=0.0)
    evidence = torch.zeros(1, 4, dtype=torch.float64)
    p = probabilities_of_states(layer, evidence[0])
    np.testing.assert_allclose(
        np.einsum("s,si,sj->ij", p, states(4), states(4)), moments(labels), atol=1e-6
    )
    nll = layer.nll(evidence.expand(500, -1), labels).item()
    assert fit.nll == pytest.approx(nll) and fit.gradient < 1e-6
    assert fit.bias_error is None and fit.couplings_error is None
    assert torch.equal(layer.couplings, layer.couplings.T)


def test_a_fit_of_partly_known_labels_is_a_maximum() -> None:
    labels = label_table(400)
    labels[torch.rand(labels.shape) < 0.3] = -1
    layer = PairwiseInference(4).double()
    fit = layer.fit_labels(labels, ridge=0.0)
    evidence = torch.zeros(400, 4, dtype=torch.float64)
    best = layer.nll(evidence, labels)
    assert fit.nll == pytest.approx(best.item())
    grads = torch.autograd.grad(best, [*layer.parameters()])
    assert all(grad.abs().max() < 1e-6 for grad in grads)
    for _ in range(5):
        other = random_layer(4, 0.1)
        with torch.no_grad():
            other.bias += layer.bias
            other.couplings += layer.couplings
        assert other.nll(evidence, labels) > best


def test_a_ridge_keeps_parameters_of_what_never_occurs_finite() -> None:
    labels = label_table(300)
    labels[:, 0] = 0
    layer = PairwiseInference(4)
    fit = layer.fit_labels(labels)
    assert -15 < layer.bias[0] < -3 and layer.couplings.abs().max() < 5
    assert fit.gradient < 1e-6 and layer.bias.dtype == torch.float32


def test_standard_errors_of_independent_rows_are_those_of_the_information() -> None:
    labels = label_table(5000, 3)
    layer = PairwiseInference(3).double()
    fit = layer.fit_labels(labels, ridge=0.0, groups=torch.arange(5000) % 300)
    p = probabilities_of_states(layer, torch.zeros(3).double())
    y = states(3)
    features = np.concatenate([y, y[:, [0, 0, 1]] * y[:, [1, 2, 2]]], 1)
    mean = p @ features
    information = 5000 * ((features * p[:, None]).T @ features - np.outer(mean, mean))
    expected = np.sqrt(np.diag(np.linalg.inv(information)))
    found = [*fit.bias_error, *fit.couplings_error[[0, 0, 1], [1, 2, 2]]]
    # The model is right, so scores vary as the information says, but for sampling.
    np.testing.assert_allclose(found, expected, rtol=0.15)
    assert torch.equal(fit.couplings_error, fit.couplings_error.T)


def test_rows_that_a_person_repeats_add_no_information() -> None:
    labels = label_table(60)
    once, often = PairwiseInference(4).double(), PairwiseInference(4).double()
    groups = torch.arange(60)
    fit = once.fit_labels(labels, ridge=1.0, groups=groups)
    names = (97 - groups).repeat(5)
    repeated = often.fit_labels(labels.repeat(5, 1), ridge=5.0, groups=names)
    torch.testing.assert_close(repeated.bias_error, fit.bias_error, rtol=1e-4, atol=0)
    torch.testing.assert_close(repeated.couplings_error, fit.couplings_error, rtol=1e-4, atol=0)


def real_model(**options) -> PairwiseInference:
    """The pairwise model of the labels of BP4D."""
    world = label_world("BP4D")
    layer = PairwiseInference(12, **options).double()
    with torch.no_grad():
        layer.bias.copy_(torch.as_tensor(world.fields))
        layer.couplings.copy_(torch.as_tensor(world.couplings))
    return layer


def test_blocks_are_near_the_exact_marginals_on_a_real_model() -> None:
    exact = real_model()
    blocks = coupled_blocks(exact.couplings, 6)
    split = real_model(num_exact=6, blocks=blocks)
    logits = torch.randn(500, 12, generator=torch.Generator().manual_seed(0)).double()
    expected = exact.probabilities(logits)
    error = (split.probabilities(logits) - expected).abs()
    assert error.mean() < 0.03 and error.max() < 0.25
    assert error.mean() < 0.15 * (logits.sigmoid() - expected).abs().mean()
    known = torch.randint(-1, 2, logits.shape, generator=torch.Generator().manual_seed(1))
    given = (split.condition(logits, known) - exact.condition(logits, known)).abs()
    assert given.mean() < 0.03


def test_blocks_without_couplings_between_them_are_exact() -> None:
    blocks = ((0, 3), (1, 4), (2,))
    split, exact = random_layer(num_exact=2, blocks=blocks), PairwiseInference(5).double()
    within = torch.zeros(5, 5, dtype=torch.bool)
    within[0, 3] = within[3, 0] = within[1, 4] = within[4, 1] = True
    with torch.no_grad():
        split.couplings.masked_fill_(~within, 0)
    exact.load_state_dict(split.state_dict())
    logits, mask = torch.randn(6, 5, dtype=torch.float64), torch.rand(6, 5) < 0.7
    labels = torch.randint(-1, 2, (6, 5))
    torch.testing.assert_close(split(logits, mask), exact(logits, mask))
    torch.testing.assert_close(split.nll(logits, labels), exact.nll(logits, labels))
    torch.testing.assert_close(split.condition(logits, labels), exact.condition(logits, labels))


def test_the_likelihood_of_blocks_is_given_the_labels_of_the_others() -> None:
    blocks = ((0, 1), (2, 3, 4))
    split, exact = random_layer(num_exact=3, blocks=blocks), PairwiseInference(5).double()
    exact.load_state_dict(split.state_dict())
    logits = torch.randn(4, 5, dtype=torch.float64)
    labels = torch.randint(0, 2, (4, 5))
    expected = 0.0
    for block in blocks:
        others = labels.clone()
        others[:, list(block)] = -1
        expected += exact.nll(logits, labels) - exact.nll(logits, others)
    torch.testing.assert_close(split.nll(logits, labels), expected)


def test_forty_one_action_units_have_gradients_and_can_be_fitted() -> None:
    layer = random_layer(41, 0.1)
    assert [len(block) for block in layer.blocks] == [13, 14, 14]
    logits = torch.randn(2, 41, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(-1, 2, (2, 41))
    total = layer(logits).sum() + layer.nll(logits, labels)
    grads = torch.autograd.grad(total, [logits, *layer.parameters()])
    assert all(grad.isfinite().all() and grad.any() for grad in grads)
    small = PairwiseInference(6, num_exact=3)
    fit = small.fit_labels(label_table(200, 6), ridge=1.0)
    assert fit.gradient < 1e-6 and small.couplings[0, 5] != 0


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
def test_blocks_hold_each_node_once(size: int) -> None:
    couplings = torch.randn(8, 8, generator=torch.Generator().manual_seed(3))
    for blocks in (coupled_blocks(couplings, size), even_blocks(8, size)):
        assert sorted(node for block in blocks for node in block) == list(range(8))
        assert max(map(len, blocks)) <= size and len(blocks) == -(-8 // size)
        assert max(map(len, blocks)) - min(map(len, blocks)) <= 1


def test_coupled_blocks_hold_the_couplings() -> None:
    couplings = torch.zeros(6, 6)
    for i, j in ((0, 5), (5, 2), (1, 4), (4, 3)):
        couplings[i, j] = -2.0
    assert coupled_blocks(couplings, 3) == ((0, 2, 5), (1, 3, 4))
    assert coupled_blocks(torch.zeros(5, 5), 2) == even_blocks(5, 2)


def test_a_compiled_layer_is_the_layer() -> None:
    layer, logits = random_layer().float(), torch.randn(3, NODES)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(logits), layer(logits))
    exported = torch.export.export(layer, (logits,)).module()
    torch.testing.assert_close(exported(logits), layer(logits))


def test_messages() -> None:
    layer = PairwiseInference(4)
    logits, labels = torch.zeros(2, 4), torch.zeros(2, 4)
    for call, message in (
        (lambda: PairwiseInference(0), "num_nodes must be 1 or more, got 0"),
        (lambda: PairwiseInference(3, num_exact=25), r"num_exact must be in 1\.\.24, got 25"),
        (lambda: PairwiseInference(3, blocks=[[0]]), "blocks must be None for at most num_exact"),
        (
            lambda: PairwiseInference(4, num_exact=3, blocks=[[0, 1], [2]]),
            r"blocks must hold each of 0\.\.3 once, got",
        ),
        (
            lambda: PairwiseInference(4, num_exact=2, blocks=[[0, 1, 2], [3]]),
            r"blocks must have 1\.\.2 nodes, got \[3, 1\]",
        ),
        (lambda: layer(logits[0]), r"logits must have shape \(\.\.\., N=4\), got \(4,\)"),
        (lambda: layer(logits.long()), "logits must be floating point, got torch.int64"),
        (lambda: layer(logits, torch.ones(2, 3) > 0), r"mask must have shape \(2, 4\), got"),
        (lambda: layer(logits, labels), "mask must be bool"),
        (lambda: layer.nll(logits, labels[:1]), r"labels must have shape \(2, 4\), got \(1, 4\)"),
        (lambda: layer.nll(logits, labels + 2), "labels must be 1 .*, got 2"),
        (lambda: layer.nll(logits, labels, reduction="x"), "reduction must be one of"),
        (lambda: layer.condition(logits, labels + 2), "known must be 1 .*, got 2"),
        (lambda: layer.fit_labels(labels[0]), r"labels must have shape \(M, N=4\), got \(4,\)"),
        (lambda: layer.fit_labels(labels[:0]), "labels must have 1 row or more, got 0"),
        (lambda: layer.fit_labels(labels - 2), "labels must be 1 .*, got -2"),
        (lambda: layer.fit_labels(labels, ridge=-1.0), "ridge must be 0 or more, got -1"),
        (lambda: layer.fit_labels(labels, groups=labels[0]), r"groups must have shape \(M=2\)"),
        (lambda: layer.fit_labels(labels, groups=labels[:, 0]), "groups must name 2 people"),
        (lambda: coupled_blocks(torch.zeros(3, 3), 0), "size must be 1 or more, got 0"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            call()
