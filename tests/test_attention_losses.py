"""Attention maps that landmarks supervise, against loops over cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from aurel.facs import AUSet, au_center_rules
from aurel.losses import attention_map_loss, attention_targets

RULES = au_center_rules("DISFA")
SIZE = (60, 80)


def faces(batch: int) -> Tensor:
    scale = torch.tensor([SIZE[1], SIZE[0]])
    return (0.2 + 0.6 * torch.rand(batch, 49, 2, dtype=torch.float64)) * scale


def target_oracle(points: np.ndarray, map_size: tuple[int, int]) -> np.ndarray:
    """One face: the larger of two pyramids in squares of side 0.14, cell by cell."""
    height, width = map_size
    out = np.zeros((len(RULES.au_nodes), height, width))
    unit = np.linalg.norm(points[22] - points[25])
    for au, (node, _) in enumerate(RULES.au_nodes):
        for landmark in RULES.points[node // 2]:
            x, y = points[landmark] + [0, RULES.offsets[node // 2] * unit]
            for row in range(height):
                for column in range(width):
                    across = abs((column + 0.5) / width - (x + 0.5) / SIZE[1])
                    down = abs((row + 0.5) / height - (y + 0.5) / SIZE[0])
                    if max(across, down) <= 0.07:
                        value = 1 - 0.56 / 0.14 * (across + down)
                        out[au, row, column] = max(out[au, row, column], value)
    return out


@pytest.mark.parametrize("map_size", [(12, 16), (60, 80)])
def test_targets_equal_the_definition(map_size: tuple[int, int]) -> None:
    landmarks = faces(2)
    targets = attention_targets(landmarks, RULES, SIZE, map_size)
    assert targets.shape == (2, 8, *map_size)
    for face in range(2):
        expected = target_oracle(landmarks[face].numpy(), map_size)
        np.testing.assert_allclose(targets[face].numpy(), expected, atol=1e-12)
    assert targets.amax() <= 1 and targets.amax() > 0.8 and targets.amin() == 0


def test_au_sets_choose_their_centers() -> None:
    landmarks = faces(1)
    every = attention_targets(landmarks, RULES, SIZE, (12, 16))
    few = attention_targets(landmarks, au_center_rules([26, 1]), SIZE, (12, 16))
    aus = AUSet.of("DISFA")
    torch.testing.assert_close(few, every[:, [aus.index(26), aus.index(1)]])


def test_the_edge_of_a_square_belongs_to_it() -> None:
    corner = torch.full((1, 49, 2), -0.5, dtype=torch.float64)  # of the image: 0 in parts of it
    targets = attention_targets(corner, RULES, (100, 100), (50, 50))
    assert (targets[..., 0, 3] - (1 - 4 * (0.01 + 0.07))).abs().max() < 1e-12
    assert torch.equal(targets, targets.mT)
    assert targets.count_nonzero() == targets.shape[1] * 4 * 4


def test_landmarks_in_half_precision_are_computed_in_float32() -> None:
    half = faces(2).half()
    targets = attention_targets(half, RULES, SIZE, (12, 16))
    assert torch.equal(targets, attention_targets(half.float(), RULES, SIZE, (12, 16)))


def test_targets_and_loss_stay_on_the_device() -> None:
    with FakeTensorMode():
        masks = torch.rand(2, 8, 6, 8, device="cuda")
        landmarks = torch.rand(2, 49, 2, device="cuda")
        assert attention_targets(landmarks, RULES, SIZE, (6, 8)).device.type == "cuda"
        assert attention_map_loss(masks, landmarks, RULES, SIZE).device.type == "cuda"


def test_loss_equals_the_equation() -> None:
    masks = torch.rand(3, 8, 12, 16, dtype=torch.float64)
    landmarks = faces(3)
    landmarks[1, 5, 0] = torch.nan
    loss = attention_map_loss(masks, landmarks, RULES, SIZE)
    terms = []
    for face in (0, 2):
        t, m = target_oracle(landmarks[face].numpy(), (12, 16)), masks[face].numpy()
        terms.append(-(t * np.log(m) + (1 - t) * np.log(1 - m)).mean())
    assert loss.item() == pytest.approx(np.mean(terms), rel=1e-12)


def test_faces_without_landmarks_have_no_part() -> None:
    masks = torch.rand(2, 8, 6, 8, dtype=torch.float64)
    masks[1] = torch.nan
    masks.requires_grad_()
    landmarks = faces(2)
    landmarks[1] = torch.nan
    (gradient,) = torch.autograd.grad(attention_map_loss(masks, landmarks, RULES, SIZE), masks)
    assert gradient.isfinite().all() and gradient[0].all() and not gradient[1].any()
    assert attention_map_loss(masks, landmarks * torch.nan, RULES, SIZE) == 0


def test_saturated_masks_and_gradient() -> None:
    landmarks = faces(1)
    for value in (0.0, 1.0):
        for dtype in (torch.float32, torch.float16):
            masks = torch.full((1, 8, 6, 8), value, dtype=dtype)
            assert attention_map_loss(masks, landmarks, RULES, SIZE) < 20
    masks = (0.1 + 0.8 * torch.rand(1, 8, 3, 4, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: attention_map_loss(m, landmarks, RULES, SIZE), masks)
    best = attention_targets(landmarks, RULES, SIZE, (6, 8)).clamp(1e-6, 1 - 1e-6)
    lowest = attention_map_loss(best, landmarks, RULES, SIZE)
    assert lowest < attention_map_loss((best + 0.05).clamp_max(0.99), landmarks, RULES, SIZE)
    assert attention_map_loss(best.half(), landmarks.float(), RULES, SIZE).dtype == torch.float32


def test_bad_shapes() -> None:
    with pytest.raises(
        ValueError, match=r"masks must have shape \(B=2, N=8, H, W\), got \(2, 7, 6, 8\)"
    ):
        attention_map_loss(torch.zeros(2, 7, 6, 8), faces(2), RULES, SIZE)
    with pytest.raises(
        ValueError, match=r"landmarks must have shape \(B, 49, 2\), got \(2, 68, 2\)"
    ):
        attention_targets(torch.zeros(2, 68, 2), RULES, SIZE, (6, 8))
