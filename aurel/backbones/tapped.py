"""The methods that timm requires of a model with feature maps, for the backbones here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Blocks(nn.Sequential):
    """Modules in sequence, each of which can be recomputed in the backward pass."""

    grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        for block in self:
            if self.grad_checkpointing and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x


class TappedModel(nn.Module):
    """A chain of modules from image to classifier, with taps for feature maps.

    Subclasses set `feature_info`, one dict a tap with `num_chs`, `reduction` and `module`,
    and define `_steps` and `reset_classifier`.
    """

    feature_info: list[dict[str, Any]]
    num_features: int
    head_hidden_size: int

    def _steps(self) -> list[tuple[nn.Module, ...]]:
        """Return the modules that lead from each tap to the next."""
        raise NotImplementedError

    def _norm_map(self, x: Tensor) -> Tensor:
        """Return `x` after the norm between the last map and the classifier, if there is one."""
        return x

    def _drop_norm(self) -> None:
        """Remove that norm."""

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one, or by none for 0 classes."""
        raise NotImplementedError

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the map that is pooled and classified, (B, C, H', W')."""
        for step in self._steps():
            for module in step:
                x = module(x)
        return self._norm_map(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the maps at the taps, with the arguments that timm passes to a model.

        Args:
            x: images (B, in_chans, H, W).
            indices: which taps; an int for the last so many, None for all.
            norm: apply the final norm to the last tap's map.
            stop_early: skip the modules that no requested tap requires.
            output_fmt: only "NCHW".
            intermediates_only: return the list alone, not (final map, list).
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be 'NCHW', got {output_fmt!r}")
        take = _tap_indices(indices, len(self.feature_info))
        steps = self._steps()
        last = len(steps) - 1
        maps = []
        for index, step in enumerate(steps[: take[-1] + 1] if stop_early else steps):
            for module in step:
                x = module(x)
            if index in take:
                maps.append(self._norm_map(x) if norm and index == last else x)
        if intermediates_only:
            return maps
        return (self._norm_map(x) if not stop_early or take[-1] == last else x), maps

    def prune_intermediate_layers(
        self,
        indices: int | Sequence[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Remove the modules that the taps `indices` do not require; return those indices."""
        take = _tap_indices(indices, len(self.feature_info))
        steps = self._steps()
        unneeded = {id(module) for step in steps[take[-1] + 1 :] for module in step}
        for name, module in list(self.named_children()):
            if id(module) in unneeded:
                setattr(self, name, nn.Identity())
        if prune_norm or unneeded:
            self._drop_norm()
        if unneeded:
            width = self.feature_info[take[-1]]["num_chs"]
            self.num_features = self.head_hidden_size = width
        if prune_head or unneeded:
            self.reset_classifier(0, "")
        return take


def _tap_indices(indices: int | Sequence[int] | None, taps: int) -> list[int]:
    if indices is None:
        return list(range(taps))
    requested = list(range(taps)[-indices:]) if isinstance(indices, int) else list(indices)
    if not requested or any(not -taps <= index < taps for index in requested):
        raise IndexError(f"indices must be in {-taps}..{taps - 1}, got {indices}")
    return sorted(index % taps for index in requested)
