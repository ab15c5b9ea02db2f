"""The choice of neighbors is that of exact scores, however far apart or large the nodes are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from helpers import oracle_knn as oracle
from helpers.choosing_ops import CHOOSERS, METRICS
from helpers.every_backend import every_backend
from helpers.exactness import assert_nearest, mixed_lengths, share_of_clear_rows
from torch import Tensor

from aurel import ops

every_metric = pytest.mark.parametrize("metric", METRICS)
every_chooser = pytest.mark.parametrize("name", CHOOSERS)


@every_backend
@every_chooser
@pytest.mark.parametrize("distance", [1.0, 100.0, 1e3, 1e4, 1e6])
def test_clusters_far_apart(name: str, distance: float, backend: str) -> None:
    for nodes, channels, spread in ((12, 3, 1.0), (49, 64, 0.01), (41, 65, 1.0)):
        x = torch.randn(2, nodes, channels) * spread
        x[:, ::2, 0] += distance
        for metric in ("l2", "l1"):
            assert_nearest(CHOOSERS[name](x, 5, metric, backend=backend), x, metric)


@every_backend
def test_two_clusters_of_many_channels(backend: str) -> None:
    x = torch.randn(1, 49, 512)
    for distance in (200.0, 400.0, 800.0):
        x[:, ::2] = torch.randn(1, 25, 512) + distance / 512**0.5
        assert_nearest(ops.knn_graph(x, 9, backend=backend), x, "l2")


@every_backend
def test_small_clusters_apart_equal_the_definition(backend: str) -> None:
    x = torch.randn(1, 49, 64) * 0.01
    x[:, ::2, 0] += 50
    assert_nearest(ops.knn_graph(x, 5, backend=backend), x, "l2")
    assert share_of_clear_rows(x[0], 5, "l2") > 0.9


@every_backend
@every_chooser
@every_metric
def test_one_outlier(name: str, metric: str, backend: str) -> None:
    x = torch.randn(2, 30, 16)
    for far in (1e3, 1e6, 1e12):
        x[:, 7] = torch.randn(16) * far
        assert_nearest(CHOOSERS[name](x, 6, metric, backend=backend), x, metric)


@every_backend
@every_metric
def test_pixel_coordinates_beside_small_features(metric: str, backend: str) -> None:
    place = torch.rand(2, 60, 2) * torch.tensor([1920.0, 1080.0])
    x = torch.cat((place, torch.randn(2, 60, 30) * 0.01), 2)
    x[:, 1::2, :2] = x[:, ::2, :2]  # pairs in one pixel, distinguished by features
    assert_nearest(ops.knn_graph(x, 4, metric, backend=backend), x, metric)


@every_backend
@every_chooser
def test_rows_of_one_channel(name: str, backend: str) -> None:
    row = [-3000.2, -3000.1, -3000.0, 3000.0, 3000.1, 3000.2]
    x = torch.tensor(row)[None, :, None]
    for metric in ("l2", "l1"):
        choose = lambda k, m=metric: CHOOSERS[name](x, k, m, backend=backend)[0]  # noqa: E731
        assert choose(1).flatten().tolist() == [0, 1, 2, 3, 4, 5]
        # From -3000.1 and 3000.1 the gaps to both sides differ by rounding of the features.
        assert choose(3).sort(1).values.tolist() == [[0, 1, 2]] * 3 + [[3, 4, 5]] * 3
    for seed in range(10):
        torch.manual_seed(seed)
        x = (torch.randint(0, 9, (1, 50, 1)) * 1000 + torch.rand(1, 50, 1)).float()
        for metric in ("l2", "l1"):
            assert_nearest(CHOOSERS[name](x, 7, metric, backend=backend), x, metric)


@every_backend
@every_chooser
@pytest.mark.parametrize("power", [-12, -11, -6, 0, 9, 10, 15, 18, 30])
def test_cosine_at_every_scale(name: str, power: int, backend: str) -> None:
    directions = torch.randn(2, 12, 64)
    x = (directions.double() * 10.0**power).float()
    lists = CHOOSERS[name](x, 5, "cosine", backend=backend)
    assert_nearest(lists, x, "cosine")
    exact = (directions * 2.0 ** round(power * 3.3219)).float()  # a power of two rounds nothing
    got = CHOOSERS[name](exact, 5, "cosine", backend=backend)
    assert torch.equal(got, CHOOSERS[name](directions, 5, "cosine", backend=backend))


@every_backend
@every_chooser
def test_cosine_of_nodes_of_unlike_lengths(name: str, backend: str) -> None:
    x = mixed_lengths(2, 43, 24)
    assert_nearest(CHOOSERS[name](x, 7, "cosine", backend=backend), x, "cosine")


@every_backend
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_metric
def test_halves_are_compared_in_float32(metric: str, dtype: torch.dtype, backend: str) -> None:
    x = (torch.randn(2, 30, 48) + 3).to(dtype)
    assert_nearest(ops.knn_graph(x, 7, metric, backend=backend), x, metric)
    wide = ops.knn_graph(x.float(), 7, metric, backend=backend)
    assert torch.equal(ops.knn_graph(x, 7, metric, backend=backend), wide)


@every_backend
@every_metric
def test_float64_is_compared_in_float64(metric: str, backend: str) -> None:
    x = torch.randn(2, 30, 6, dtype=torch.float64) * 1e-9 + torch.randn(2, 1, 6).double()
    error = 1e-6 if metric in ("l2", "l1") else 1e-14
    assert_nearest(ops.knn_graph(x, 7, metric, backend=backend), x, metric, rounding=error)


def broken(seed: int) -> Iterator[Tensor]:
    """Yield nodes of which some are zero, infinite or NaN, in one channel or in all."""
    torch.manual_seed(seed)
    values = (torch.nan, torch.inf, -torch.inf, 0.0)
    for value in values:
        for other in values:
            x = torch.randint(-4, 5, (1, 13, 4)).float()
            x[0, 3, 1], x[0, 8] = value, other
            x[0, 9] = 0
            yield x


@every_backend
@every_chooser
@every_metric
def test_zeros_infinities_and_nan(name: str, metric: str, backend: str) -> None:
    for x in broken(seed=3):
        want = oracle.neighbors(x.numpy(), 13, metric)
        got = CHOOSERS[name](x, 13, metric, backend=backend)
        np.testing.assert_array_equal(got.numpy(), want)


@every_backend
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 0.0])
@every_metric
def test_all_values_are_equal(metric: str, value: float, backend: str) -> None:
    x = torch.full((2, 9, 5), value)
    lists = ops.knn_graph(x, 4, metric, backend=backend)
    assert torch.equal(lists, torch.arange(4).expand(2, 9, 4))


@every_backend
def test_infinite_products_keep_their_order(backend: str) -> None:
    x = torch.tensor([[[1.0], [torch.inf], [-torch.inf], [2.0], [torch.nan]]])
    lists = ops.knn_graph(x, 5, "dot", backend=backend)[0]
    assert lists[0].tolist() == [1, 3, 0, 2, 4]
    assert lists[1].tolist() == [0, 1, 3, 2, 4]
    assert lists[2].tolist() == [2, 0, 1, 3, 4]


def distributions() -> Iterator[Tensor]:
    """Yield 50 clouds of 1000 points in 1 to 8 dimensions."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        shape = (1000, 1 + seed % 8)
        points = {
            0: lambda rng=rng, shape=shape: rng.normal(size=shape),
            1: lambda rng=rng, shape=shape: rng.uniform(size=shape) * 1000,
            2: lambda rng=rng, shape=shape: rng.standard_cauchy(shape),
            3: lambda rng=rng, shape=shape: np.exp(3 * rng.normal(size=shape)),
            4: lambda rng=rng, shape=shape: (
                rng.normal(size=shape) + 6000 * rng.integers(0, 2, (1000, 1))
            ),
        }[seed % 5]()
        yield torch.from_numpy(points.astype(np.float32))


@every_backend
def test_equals_a_tree(backend: str) -> None:
    spatial = pytest.importorskip("scipy.spatial")
    for x in distributions():
        points = x.double().numpy()
        want, _ = spatial.cKDTree(points).query(points, 9)
        lists = ops.knn_graph(x[None], 9, backend=backend)[0].numpy()
        got = np.linalg.norm(points[lists] - points[:, None], axis=2)
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=0)
        far = want[:, 1] > 0
        assert (lists[far, 0] == np.flatnonzero(far)).all()
