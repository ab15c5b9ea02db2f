"""Original Swin Transformer weights under timm's names.

The original code merges patches at the end of stages 0 to 2, timm at the start of stages 1 to 3;
the order of the four merged patches is the same. The original also stores two kinds of buffers that
follow from the architecture: attention masks and relative position indices.
"""

from __future__ import annotations

import re

IGNORED = (".attn_mask", ".relative_position_index")


def original_name(timm_name: str) -> str:
    """Return the original name of a parameter of timm's Swin: `layers.1.downsample.norm.weight`,
    as timm calls it, is `layers.0.downsample.norm.weight` there."""
    return re.sub(
        r"^layers\.(\d+)\.downsample\.",
        lambda match: f"layers.{int(match[1]) - 1}.downsample.",
        timm_name,
    )
