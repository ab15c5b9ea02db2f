"""Names of MDHR's cross-region relation module (`CRM` in its checkpoints)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def cross_region_gat(author: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the authors' state dict onto `aurel.layers.CrossRegionGAT`.

    Beware their names: what they call the source scores the node that listens (the row), which is
    the target of the messages here.

    Args:
        author: keys relative to the module (``gat.linear.weight``) or to its attention
            (``linear.weight``).

    Returns:
        The state dict of `CrossRegionGAT`.
    """
    gat = {key.removeprefix("gat."): value for key, value in author.items()}
    return {
        "linear.weight": gat["linear.weight"],
        "bias": gat["bias"],
        "target_attention": gat["scoring_fn_source"].squeeze(0),
        "source_attention": gat["scoring_fn_target"].squeeze(0),
    }
