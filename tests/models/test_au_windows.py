"""AU windows: an AU sees its windows alone, until a relation joins them."""

from __future__ import annotations

import pytest
import torch

from aurel.models import create_model
from aurel.models.au_windows import au_cells

BP4D = create_model("au_windows").aus


def test_an_au_reads_its_windows_and_nothing_else() -> None:
    """The brows do not move the logits of the mouth; with a relation they do."""
    torch.manual_seed(0)
    images = torch.randn(1, 3, 64, 64)
    changed = images.clone()
    changed[:, :, :24] = torch.randn(1, 3, 24, 64)
    brows, mouth = BP4D.index(1), BP4D.index(12)
    local = create_model("au_windows").eval()
    moved = (local(images).logits - local(changed).logits).abs()[0]
    assert moved[brows] > 1e-3 and moved[mouth] == 0
    related = create_model("au_windows", relation="self_adjusting").eval()
    torch.nn.init.normal_(related.correction.weight)
    moved = (related(images).logits - related(changed).logits).abs()[0]
    assert moved[mouth] > 1e-4


def test_the_relation_starts_without_effect() -> None:
    model = create_model("au_windows", relation="self_adjusting").eval()
    plain = create_model("au_windows").eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(images).logits, plain(images).logits)
    assert plain(images, return_graph=True).graphs is None
    first, second = model(images, return_graph=True).graphs
    assert first.neighbors.shape == second.neighbors.shape == (2, 12, 9)


def test_cells_lie_in_the_map_and_mirror_each_other() -> None:
    cells = au_cells(BP4D, 64, 4)
    assert cells.shape == (12, 32) and cells.min() >= 0 and cells.max() < 256
    left, right = (part.view(12, 4, 4) % 16 for part in cells.chunk(2, 1))
    assert ((left.flip(2) + right) - 15).abs().max() <= 1  # the center may lie between two cells
    assert (au_cells(BP4D, 128, 4).max() < 1024).item()


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match="relation must be one of none, self_adjusting, got 'gat'"):
        create_model("au_windows", relation="gat")
    with pytest.raises(ValueError, match=r"side must be in 1..16 for images of 64 pixels, got 17"):
        create_model("au_windows", side=17)
    with pytest.raises(ValueError, match="backbone must have its first map at 1/2 or 1/4"):
        create_model("au_windows", backbone="vit_tiny_patch16_224")
    with pytest.raises(ValueError, match=r"images must be \(B, 3, 64, 64\), got \(1, 3, 32, 32\)"):
        create_model("au_windows")(torch.zeros(1, 3, 32, 32))
