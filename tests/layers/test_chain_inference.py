"""ChainInference: action units coupled in a frame and persistent along a video."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from aurel.layers import ChainInference
from aurel.layers.chain_gaps import costs_over_gaps

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ops"))
from helpers.oracle_chain import enumerate_paths  # noqa: E402


def random_layer(units: int = 3, seed: int = 0) -> ChainInference:
    torch.manual_seed(seed)
    layer = ChainInference(units).double()
    with torch.no_grad():
        layer.bias.normal_()
        layer.couplings.normal_()
        layer.stay.uniform_(0.5, 3)
        layer.temper.fill_(0.7)
    return layer


def parameters(layer: ChainInference, logits: Tensor) -> tuple:
    """Arguments of the oracle."""
    fields = (layer.temper * logits + layer.bias).detach().numpy()
    return fields, layer.couplings.detach().numpy(), layer.stay.detach().numpy()


def test_it_starts_as_the_identity() -> None:
    logits = torch.randn(2, 5, 4)
    layer = ChainInference(4)
    torch.testing.assert_close(layer(logits), logits)
    torch.testing.assert_close(layer.filter(logits), logits)
    assert torch.equal(layer.most_likely_path(logits), (logits > 0).long())
    frames = torch.nn.functional.logsigmoid(-logits).sum()
    torch.testing.assert_close(layer.log_likelihood(logits, 0 * logits).sum(), frames)


def test_equals_the_sum_over_all_paths() -> None:
    layer, logits = random_layer(), torch.randn(2, 4, 3).double()
    mask = torch.tensor([[True, True, False, True], [False, True, True, True]])
    out, path = layer(logits, mask), layer.most_likely_path(logits)
    for b in range(2):
        want = enumerate_paths(*parameters(layer, logits[b]), mask[b].numpy())
        torch.testing.assert_close(out[b].sigmoid(), torch.from_numpy(want.marginals))
        best = enumerate_paths(*parameters(layer, logits[b])).best
        assert torch.equal(path[b].double(), torch.from_numpy(best))


def test_one_frame_is_a_pairwise_model() -> None:
    layer, logits = random_layer(4), torch.randn(3, 1, 4).double()
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 4)
    half = ((layer.couplings + layer.couplings.T) / 2).triu(1)
    energies = (layer.temper * logits[:, 0] + layer.bias) @ states.T
    energies = energies + ((states @ half) * states).sum(1)
    torch.testing.assert_close(layer(logits)[:, 0].sigmoid(), energies.softmax(1) @ states)


@pytest.mark.parametrize("known", [0.0, 0.5, 1.0])
def test_the_likelihood_sums_unknown_labels_out(known: float) -> None:
    layer, logits = random_layer(), torch.randn(2, 3, 3).double()
    labels = torch.randint(0, 2, (2, 3, 3)).masked_fill(torch.rand(2, 3, 3) >= known, -1)
    mask = torch.tensor([[True, False, True], [True, True, True]])
    found = layer.log_likelihood(logits, labels, mask)
    for b in range(2):
        allowed = labels[b].masked_fill(~mask[b, :, None], -1).numpy()
        given = (*parameters(layer, logits[b]), mask[b].numpy())
        whole, agreeing = enumerate_paths(*given), enumerate_paths(*given, allowed)
        want = agreeing.log_partition - whole.log_partition
        assert found[b].item() == pytest.approx(want, abs=1e-8)
    assert layer.nll(logits, labels, mask).item() == pytest.approx(-found.sum().item() / 5)


def test_gradients_of_the_likelihood() -> None:
    layer, logits = random_layer(), torch.randn(2, 3, 3).double().requires_grad_()
    labels = torch.randint(-1, 2, (2, 3, 3))
    gaps = torch.tensor([[1.0, 2.0], [3.0, 1.0]])

    def loss(logits: Tensor, *state: Tensor) -> Tensor:
        names = dict(zip(("bias", "couplings", "stay"), state, strict=True))
        for name, value in names.items():
            delattr(layer, name)
            setattr(layer, name, value)
        return layer.nll(logits, labels, gaps=gaps)

    given = [logits, *(p.detach().clone().requires_grad_() for p in layer.parameters())]
    assert torch.autograd.gradcheck(loss, given)


def test_a_float32_likelihood_of_a_long_clip_is_exact() -> None:
    layer, logits = random_layer(4), 3 * torch.randn(1, 600, 4)
    labels = (logits > 0).long()
    want = layer.log_likelihood(logits.double(), labels)
    got = layer.float().log_likelihood(logits, labels)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)


def test_frames_that_are_left_out_equal_frames_that_are_not_valid() -> None:
    layer, logits = random_layer(4), torch.randn(2, 9, 4).double()
    mask = torch.rand(2, 9) < 0.5
    mask[:, 3] = True
    spoiled = logits.masked_fill(~mask[..., None], torch.nan)
    labels = torch.randint(-1, 2, (2, 9, 4))
    found = {
        "smooth": layer.smooth(spoiled, mask),
        "filter": layer.filter(spoiled, mask),
        "likelihood": layer.log_likelihood(spoiled, labels, mask),
    }
    for b in range(2):
        kept = mask[b].nonzero()[:, 0]
        some, gaps = logits[b : b + 1, kept], kept.diff().double()
        torch.testing.assert_close(found["smooth"][b, kept], layer.smooth(some, gaps=gaps)[0])
        torch.testing.assert_close(found["filter"][b, kept], layer.filter(some, gaps=gaps)[0])
        alone = layer.log_likelihood(some, labels[b : b + 1, kept], gaps=gaps)
        torch.testing.assert_close(found["likelihood"][b], alone[0])


def test_a_gap_is_a_power_of_the_matrix_of_a_step() -> None:
    stay = torch.tensor([0.0, 1e-3, 0.5, 4.0, 25.0, 60.0], dtype=torch.float64)
    gaps = torch.tensor([[1.0, 2.0, 7.0, torch.inf]]).double()
    costs = costs_over_gaps(stay, gaps)[0]
    assert torch.equal(costs[0], stay) and not costs[3].any() and not costs[:, 0].any()
    change = stay[2:4].neg().exp()
    matrices = torch.stack((1 + 0 * change, change, change, 1 + 0 * change), -1).view(2, 2, 2)
    for row, gap in ((1, 2), (2, 7)):
        power = torch.linalg.matrix_power(matrices, gap)
        torch.testing.assert_close(costs[row, 2:4].neg().exp(), power[:, 0, 1] / power[:, 0, 0])
    leaf = stay.requires_grad_()
    (grad,) = torch.autograd.grad(costs_over_gaps(leaf, gaps).sum(), leaf)
    assert grad.isfinite().all()
    assert torch.autograd.gradcheck(
        lambda s: costs_over_gaps(s, gaps), stay[2:4].detach().requires_grad_()
    )


def test_an_infinite_gap_begins_another_clip() -> None:
    layer, logits = random_layer(), torch.randn(1, 6, 3).double()
    gaps = torch.tensor([1.0, 1.0, torch.inf, 1.0, 1.0])
    apart = torch.cat((layer(logits[:, :3]), layer(logits[:, 3:])), 1)
    torch.testing.assert_close(layer(logits, gaps=gaps), apart)


def test_people_of_a_table_do_not_meet() -> None:
    layer = random_layer()
    tracks = torch.tensor([7, 2, 7, 2, 2, 5, 7])
    frames = torch.tensor([0, 0, 3, 1, 9, 4, 1])
    logits = torch.randn(7, 3).double()
    found = layer.smooth_tracks(logits, tracks, frames)
    for person in (2, 5, 7):
        rows = (tracks == person).nonzero()[:, 0]
        rows = rows[frames[rows].argsort()]
        alone = layer(logits[rows][None], gaps=frames[rows].diff().double())
        torch.testing.assert_close(found[rows], alone[0])
    torch.testing.assert_close(
        layer.smooth_tracks(logits[:2], tracks[:2]), layer(logits[:2, None])[:, 0]
    )
    assert layer.smooth_tracks(logits[:0], tracks[:0]).shape == (0, 3)
    with pytest.raises(ValueError, match=r"^frames must .*person 2 twice in frame 1"):
        layer.smooth_tracks(logits, tracks, torch.tensor([0, 1, 3, 1, 9, 4, 1]))


@pytest.mark.parametrize("lag", [0, 1, 3, 20])
def test_a_stream_equals_smoothing_of_what_it_has_seen(lag: int) -> None:
    layer, logits = random_layer(4), torch.randn(1, 9, 4).double()
    gaps = torch.tensor([1.0, 1.0, 3.0, 1.0, 2.0, 1.0, 1.0, 1.0])
    stream = layer.stream(lag)
    for _ in range(2):  # after `flush` it begins anew
        for t in range(9):
            out = stream.push(logits[0, t], gap=1.0 if t == 0 else gaps[t - 1].item())
            assert (out is None) == (t < lag)
            if out is not None:
                seen = layer(logits[:, : t + 1], gaps=gaps[:t])
                torch.testing.assert_close(out, seen[0, t - lag])
        torch.testing.assert_close(stream.flush(), layer(logits, gaps=gaps)[0, 9 - min(lag, 9) :])
        assert stream.flush().shape == (0, 4)


def test_a_stream_keeps_its_parameters_and_its_memory() -> None:
    layer = random_layer()
    stream = layer.stream(2)
    want = layer(torch.zeros(1, 1, 3).double())[0]
    torch.nn.init.zeros_(layer.bias)
    assert stream.push(torch.zeros(3).double()) is None
    torch.testing.assert_close(stream.flush(), want)
    for _ in range(50):
        stream.push(torch.randn(3))
    assert len(stream.flush()) == 2


def sampled(layer: ChainInference, clips: int, frames: int) -> Tensor:
    """Labels of the layer's own distribution, (clips, frames, N), frame by frame."""
    labels = torch.full((clips, frames, layer.num_nodes), -1)
    logits = torch.zeros(clips, frames, layer.num_nodes, dtype=torch.float64)
    with torch.no_grad():
        for t in range(frames):
            for i in range(layer.num_nodes):
                certain = 1e3 * (2.0 * labels - 1).double().masked_fill(labels < 0, 0)
                chance = layer(logits + certain)[:, t, i].sigmoid()
                labels[:, t, i] = (torch.rand(clips) < chance).long()
    return labels


@pytest.mark.parametrize("unknown", [False, True])
def test_parameters_are_found_again_from_labels(unknown: bool) -> None:
    true, layer = random_layer(2), ChainInference(2).double()
    with torch.no_grad():
        true.bias.copy_(torch.tensor([-0.3, 0.1]))
        true.couplings.copy_(torch.tensor([[9.0, 0.5], [0.3, 9.0]]))
        true.stay.copy_(torch.tensor([1.0, 2.0]))
        true.temper.fill_(1)
    labels = sampled(true, 300, 8)
    clips = list(labels)
    clips[0] = clips[0][:5]
    if unknown:
        clips = [clip.masked_fill(torch.rand(clip.shape) < 0.2, -1) for clip in clips]
    loss = layer.fit_labels(clips)
    pair = (true.couplings + true.couplings.T)[0, 1] / 2
    assert (layer.bias - true.bias).abs().max() < 0.25
    assert (layer.couplings[0, 1] - pair).abs() < 0.25
    assert (layer.stay - true.stay).abs().max() < 0.25
    nothing = [torch.zeros_like(clip, dtype=torch.float64)[None] for clip in clips]
    likelihood = sum(
        layer.log_likelihood(u, clip[None]) for u, clip in zip(nothing, clips, strict=True)
    )
    assert loss == pytest.approx(-likelihood.item() / sum(map(len, clips)), rel=1e-6)
    with torch.no_grad():  # the maximum, but for the ridge
        layer.stay.add_(0.05)
    moved = sum(layer.log_likelihood(u, clip[None]) for u, clip in zip(nothing, clips, strict=True))
    assert moved < likelihood


def test_labels_of_clips_of_many_lengths() -> None:
    """Log-partitions of lengths between are interpolated."""
    torch.manual_seed(0)
    layer = ChainInference(2).double()
    clips = [torch.rand(length, 2).lt(0.3).long().cummax(0).values for length in range(20, 60)]
    loss = layer.fit_labels(clips)
    total = sum(
        layer.log_likelihood(torch.zeros(1, len(c), 2).double(), c[None]).item() for c in clips
    )
    assert loss == pytest.approx(-total / sum(map(len, clips)), rel=1e-3)


def test_an_action_unit_that_never_occurs_has_finite_parameters() -> None:
    layer = ChainInference(3)
    layer.fit_labels(torch.tensor([[0, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 1]]))
    assert all(parameter.isfinite().all() for parameter in layer.parameters())
    assert (layer.stay >= 0).all()


def test_temper_follows_how_alike_the_errors_of_neighbors_are() -> None:
    torch.manual_seed(0)
    layer = ChainInference(2).double()
    torch.nn.init.constant_(layer.stay, 3.0)
    labels = sampled(layer, 20, 12)
    signal = 2 * labels.double() - 1
    alone = 2 * signal + 2 * torch.randn(20, 12, 2).double()  # logits of its own noise
    together = 2 * signal + 2 * torch.randn(20, 1, 2).double()
    fresh = layer.fit_temper(alone, labels)
    assert layer.temper.item() == pytest.approx(fresh)
    assert layer.fit_temper(together, labels) < fresh
    before = layer.temper.clone()
    with pytest.raises(ValueError, match=r"^candidates must be numbers in \(0, 1\], got"):
        layer.fit_temper(alone, labels, candidates=(0.0, 1.0))
    assert torch.equal(layer.temper, before)


def test_a_negative_cost_counts_as_none() -> None:
    layer, logits = random_layer(), torch.randn(1, 4, 3).double()
    torch.nn.init.constant_(layer.stay, -2.0)
    frames = layer(logits.view(4, 1, 3)).view(1, 4, 3)
    torch.testing.assert_close(layer(logits), frames)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda layer: ChainInference(0), r"num_nodes must be in 1\.\.16, got 0"),
        (lambda layer: ChainInference(17), r"num_nodes must be in 1\.\.16, got 17"),
        (lambda layer: layer(torch.zeros(2, 4, 2)), r"logits must have shape \(B, T, N=3\)"),
        (lambda layer: layer(torch.zeros(2, 0, 3)), "logits must have at least one frame"),
        (
            lambda layer: layer(torch.zeros(2, 4, 3), gaps=torch.ones(4)),
            r"gaps must have shape \(T-1=3\), got \(4,\)",
        ),
        (
            lambda layer: layer(torch.zeros(2, 4, 3), gaps=torch.tensor([1.0, 0.0, 1.0])),
            "gaps must be positive numbers of frames, got 0",
        ),
        (
            lambda layer: layer.nll(torch.zeros(1, 1, 3), torch.full((1, 1, 3), 2)),
            "labels must be 1 .*got 2",
        ),
        (lambda layer: layer.fit_labels([]), "labels must have at least one frame, got none"),
        (
            lambda layer: layer.fit_labels(torch.zeros(3, 3), ridge=-1.0),
            "ridge must be 0 or more, got -1",
        ),
        (lambda layer: layer.stream(-1), "lag must be 0 or more, got -1"),
        (
            lambda layer: layer.stream(1).push(torch.zeros(3), gap=0),
            "gap must be a positive number of frames, got 0",
        ),
    ],
)
def test_bad_arguments_are_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        call(ChainInference(3))
