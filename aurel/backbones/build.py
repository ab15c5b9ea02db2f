"""Image backbones by one function: every model of timm, and those of aurel."""

from __future__ import annotations

import difflib
import logging
import os
import pickle
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from aurel.backbones.batch_norms import (
    activated_norm,
    check_activations,
    freeze_statistics_when_recomputed,
)
from aurel.files import check_regular
from aurel.layers.constants import keep_constants

# Raised by torch.load, besides an UnpicklingError, for a file that is no pickle at all.
NO_PICKLE = (LookupError, UnicodeDecodeError)
_DECODER = ("decoder_", "mask_token")  # of a masked autoencoder's pre-training
_log = logging.getLogger("aurel")
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # timm's, in its order


class Backbone(nn.Module):
    """A timm model that returns feature maps.

    The model itself is `net`, so state-dict keys are timm's behind the prefix ``net.``; those of
    ``resnet50`` are torchvision's without ``fc``. Modules that no requested map requires (later
    stages, classifier, unused final norm) are removed, so that every parameter gets a gradient.

    Args:
        net: a timm model without classifier.
        out_indices: ascending, non-negative indices into its feature taps.
        final_norm: apply the model's final norm to the last map.
        data_config: timm's description of its input: input_size, mean, std, interpolation,
            crop_pct.
    """

    def __init__(
        self,
        net: Any,
        out_indices: Sequence[int],
        *,
        final_norm: bool = False,
        data_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        taps = [net.feature_info[index] for index in out_indices]
        self.channels: list[int] = [tap["num_chs"] for tap in taps]
        self.reductions: list[int] = [tap["reduction"] for tap in taps]
        self.out_indices = list(out_indices)
        self.final_norm = final_norm
        self.data_config = dict(data_config or {})
        net.prune_intermediate_layers(self.out_indices, prune_norm=not final_norm, prune_head=True)
        self.net: Any = net
        self._statistics_hooks: list[RemovableHandle] = []
        self._activated_norm = activated_norm(net)

    def check_size(self, images: Tensor) -> None:
        """Raise ValueError where the network takes a single size, and `images` have another."""
        patches = getattr(self.net, "patch_embed", None)
        if patches is None or not getattr(patches, "strict_img_size", False):
            return
        expected, got = tuple(patches.img_size or images.shape[2:]), tuple(images.shape[2:])
        if got != expected:
            raise ValueError(
                f"images must be {expected[0]} x {expected[1]} pixels for "
                f"{type(self.net).__name__}, got {got[0]} x {got[1]}"
            )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return one map a tap, :math:`(B, C_l, H_l, W_l)`, for images :math:`(B, 3, H, W)`."""
        self.check_size(images)
        check_activations(self.net, self._activated_norm)
        return self.net.forward_intermediates(
            images,
            indices=self.out_indices,
            norm=self.final_norm,
            output_fmt="NCHW",
            intermediates_only=True,
        )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass instead of keeping their activations.

        Outputs, gradients and running statistics are the same, in less memory and more time.

        Raises:
            ValueError: the model of timm does not support it.
        """
        try:
            self.net.set_grad_checkpointing(enable)
        except AssertionError as error:
            raise ValueError(f"{type(self.net).__name__}: {error}") from error
        while self._statistics_hooks:
            self._statistics_hooks.pop().remove()
        if enable:
            self._statistics_hooks = freeze_statistics_when_recomputed(self.net)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, reductions={self.reductions}"


def build_backbone(
    name: str | nn.Module,
    *,
    pretrained: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    out_indices: Sequence[int] | None = None,
    final_norm: bool = False,
    in_chans: int = 3,
    **options: Any,
) -> Any:
    """Return an image backbone by its timm name, or a module of the caller.

    Maps are NCHW whatever the layout in the model (Swin's NHWC, a ViT's tokens). The tokens of
    the papers are ``backbone(images)[-1].flatten(2).mT``; for Swin they are the normed tokens of
    the authors with ``out_indices=(-1,), final_norm=True``.

    Args:
        name: a timm model ("resnet50", "swin_base_patch4_window7_224"), "rest_lite",
            "rest_tiny", "iresnet100", "inception_resnet_v1", "vit_base_patch16_sincos",
            "vig_ti_224_gelu" (ti, s, b) or "pvig_ti_224_gelu" (ti, s, m, b); or a module with
            `channels` and `reductions` that returns a list of maps, which is returned as it is.
        pretrained: load the weights that timm publishes for this name (downloads them once).
        checkpoint: load the weights in this file instead: a state dict in timm's names, bare or
            under "model" or "state_dict", with or without a ``module.`` prefix, ``.pth`` or
            ``.safetensors``. Its classifier is ignored; every other tensor must fit.
        out_indices: which taps to return, ascending; negative counts from the last; None for all.
        final_norm: apply the model's final norm, where there is one, to the last map (timm's plain
            ViTs apply it to every map).
        in_chans: channels of the images. Loaded weights are adapted.
        **options: passed to `timm.create_model` (drop_path_rate, img_size, ...).

    Returns:
        A `Backbone`: a module from images (B, in_chans, H, W) to a list of maps, with `.channels`,
        `.reductions` (input pixels a map cell), and `.data_config` (mean, std, input_size, ...).

    Raises:
        ImportError: timm is not installed.
        ValueError: no such model, indices out of range or order, a module without `channels`, or
            a checkpoint that is no state dict or that cannot be read without running code.
        FileNotFoundError: `checkpoint` is not a file.
        RuntimeError: the weights do not fit the model, or `pretrained` and none are published.
    """
    if isinstance(name, nn.Module):
        if not (hasattr(name, "channels") and hasattr(name, "reductions")):
            raise ValueError(
                f"backbone must have the attributes channels and reductions (one int a map), got "
                f"{type(name).__name__} without them"
            )
        return name
    net = build_network(
        name, pretrained=pretrained, checkpoint=checkpoint, in_chans=in_chans, **options
    )
    return Backbone(
        net,
        _take_indices(out_indices, len(net.feature_info), name),
        final_norm=final_norm,
        data_config=data_config_of(net),
    )


def build_network(
    name: str,
    *,
    pretrained: bool = False,
    checkpoint: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    in_chans: int = 3,
    **options: Any,
) -> Any:
    """Return the whole timm model without its classifier.

    Arguments are those of `build_backbone`; `checkpoint` may also be the content of such a file.

    Returns:
        timm's model, from images to pooled features; its `reset_classifier` adds a linear layer.
    """
    timm = _timm()
    _check_name(name, timm)
    options = {**options, "num_classes": 0, "in_chans": in_chans}
    if checkpoint is not None:
        net = _create_with_checkpoint(timm, name, checkpoint, options)
    else:
        net = timm.create_model(name, pretrained=pretrained, **options)
    keep_constants(net)
    return net


def architecture(name: str) -> str:
    """Return a timm name without the tag of published weights."""
    return name.split(".")[0]


def data_config_of(net: Any) -> dict[str, Any]:
    """Return timm's description of the input of its model `net`: input_size, mean, std, ..."""
    return _timm().data.resolve_model_data_config(net)


def _timm() -> ModuleType:
    try:
        import timm
        import timm.data

        import aurel.backbones.inception_resnet_v1
        import aurel.backbones.iresnet
        import aurel.backbones.rest_lite
        import aurel.backbones.vig
        import aurel.backbones.vit_sincos  # noqa: F401  registers it
    except ImportError as error:
        raise ImportError("build_backbone needs timm: pip install 'aurel-au[models]'") from error
    return timm


def _check_name(name: str, timm: ModuleType) -> None:
    if ":" in name or timm.is_model(name):
        return
    close = difflib.get_close_matches(architecture(name), timm.list_models(), n=5)
    hint = f"nearest: {', '.join(close)}" if close else "timm.list_models() lists them"
    raise ValueError(f"name must be a model of timm, got {name!r}; {hint}")


def _take_indices(indices: Sequence[int] | None, taps: int, name: str) -> list[int]:
    if indices is None:
        return list(range(taps))
    if not indices or any(not -taps <= index < taps for index in indices):
        raise ValueError(
            f"out_indices must be in {-taps}..{taps - 1} ({name} has {taps} taps), "
            f"got {tuple(indices)}"
        )
    positive = [index % taps for index in indices]
    if any(left >= right for left, right in zip(positive, positive[1:], strict=False)):
        raise ValueError(f"out_indices must be ascending, got {tuple(indices)}")
    return positive


def _create_with_checkpoint(
    timm: ModuleType,
    name: str,
    source: str | os.PathLike[str] | Mapping[str, Any],
    options: dict[str, Any],
) -> Any:
    """Return the model with the weights of a file, loaded strictly but for its classifier.

    timm loads non-strictly where the number of classes differs from the published one, and would
    then ignore a file of other names silently. To declare that the file has no classes, and to
    remove them, keeps timm's adaptations (names, input channels) and its strictness.
    """
    if isinstance(source, Mapping):
        inner = next((source[key] for key in _WRAPPERS if key in source), source)
        state = timm.models.clean_state_dict(inner)
    elif os.path.exists(source):
        check_regular(source)
        state = _read(timm, os.fspath(source))
    else:
        raise FileNotFoundError(f"checkpoint must be a file, got {os.fspath(source)!r}")
    state = _without_decoder(state, source)
    classifiers = timm.models.get_pretrained_cfg(name).classifier or ()
    if isinstance(classifiers, str):
        classifiers = (classifiers,)
    for classifier in classifiers:
        for kind in ("weight", "bias"):
            state.pop(f"{classifier}.{kind}", None)
    overlay = {"state_dict": state, "num_classes": 0, "label_offset": 0}
    net = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    net.pretrained_cfg.pop("state_dict", None)
    return net


def _without_decoder(state: Mapping[str, Any], source: object) -> dict[str, Any]:
    """Return a state dict without the decoder of a masked autoencoder, with a line about it."""
    kept = {key: value for key, value in state.items() if not key.startswith(_DECODER)}
    if dropped := len(state) - len(kept):
        where = "the state dict" if isinstance(source, Mapping) else source
        _log.warning("%s: %d tensors of the decoder are not loaded", where, dropped)
    return kept


def _read(timm: ModuleType, path: str) -> dict[str, Any]:
    """Return the state dict in a file, without wrappers and their prefixes."""
    from safetensors import SafetensorError

    try:
        # Explicit, since older versions of timm run the code in a pickle.
        return timm.models.load_state_dict(path, weights_only=True)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as a safetensors file: {error}") from error
    except (*NO_PICKLE, pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(
            f"{path} cannot be read with torch.load(weights_only=True), the only way that is "
            f"tried, because a pickle can run any code: {error}"
        ) from error
    except AttributeError as error:
        raise ValueError(f"{path} holds no state dict ({error})") from error
