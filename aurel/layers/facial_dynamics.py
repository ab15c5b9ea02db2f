"""Motion between consecutive frames of a clip, at several scales of a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.ops.arguments import check_choice, check_shape

Fusion = Literal["adaptive", "sum", "cat"]
Padding = Literal["zeros", "repeat"]
Gate = Literal["bottleneck", "direct"]

_GATE_CHANNELS = 16


class FacialDynamics(nn.Module):
    r"""Average the motion around each frame, and weigh the scales at every position of the face.

    .. math::
        \hat d_l^s &= \mathrm{ReLU}(\mathrm{BN}(\mathrm{Conv}_l(x_l^{s+1} - x_l^s))), \qquad
        \bar d_l^t = \frac{1}{2k} \sum_{s=t-k}^{t+k-1} \hat d_l^s \\
        w^t &= \underset{l}{\mathrm{softmax}}\; \mathrm{Conv}\big([g_1(\bar d_1^t), \dots,
            g_L(\bar d_L^t)]\big), \qquad
        y^t = \mathrm{ReLU}\Big(\mathrm{BN}\Big(\mathrm{Conv}\Big(\sum_l w_l^t \odot
            \bar d_l^t\Big)\Big)\Big)

    The kernel of :math:`\mathrm{Conv}_l` is as large as its stride, which brings all maps to one
    size; :math:`g_l` is a 1x1 convolution to 16 channels, batch norm and ReLU, or with
    ``gate="direct"`` the identity.

    Beyond the ends of the clip, ``padding="zeros"`` counts :math:`\hat d = 0`, so that the sum is
    still divided by 2k, and the first frame averages k differences and k zeros; ``"repeat"``
    repeats the first and the last frame k times, which then also count in the batch statistics.

    Args:
        in_channels: width :math:`C_l` of each map, finest first.
        strides: how many times finer than the result each map is; the paper's are 8, 4, 2, 1.
        hidden_channels: width of the motion maps; the authors' is that of the backbone's last map.
        out_channels: width C' of the result.
        num_adjacent: frames k on either side.
        fusion: "adaptive" weighs scales as above, "sum" adds them up, "cat" concatenates them. A
            single scale has no weights.
        padding: see above.
        gate: "bottleneck" or "direct", see above.

    Raises:
        ValueError: no scale, not as many strides as widths, an unknown `fusion`, `padding` or
            `gate`, or `num_adjacent` below 1.

    Source: Wang et al., CVPR 2024 (MDHR), section 3.1, equations 1 to 5. The batch norms, the ReLUs
    and the bottleneck :math:`g_l` are in the authors' code; the paper weighs by one convolution of
    all motion maps, ``gate="direct"``. It also has repeated frames where the code has zeros.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        hidden_channels: int,
        out_channels: int,
        num_adjacent: int = 5,
        *,
        fusion: Fusion = "adaptive",
        padding: Padding = "zeros",
        gate: Gate = "bottleneck",
    ) -> None:
        super().__init__()
        check_choice("gate", gate, get_args(Gate))
        check_choice("fusion", fusion, get_args(Fusion))
        check_choice("padding", padding, get_args(Padding))
        if not in_channels or len(strides) != len(in_channels):
            raise ValueError(
                "in_channels and strides must have one entry a scale, at least one, got "
                f"{tuple(in_channels)} and {tuple(strides)}"
            )
        if num_adjacent < 1:
            raise ValueError(f"num_adjacent must be 1 or more, got {num_adjacent}")
        self.in_channels = tuple(in_channels)
        self.strides = tuple(strides)
        self.hidden_channels = hidden_channels
        self.out_channels = out_channels
        self.num_adjacent = num_adjacent
        self.fusion = fusion
        self.padding = padding
        self.gate = gate
        scales = len(self.in_channels)
        self.scales = nn.ModuleList(
            _conv_norm_relu(channels, hidden_channels, stride)
            for channels, stride in zip(self.in_channels, self.strides, strict=True)
        )
        self.gates = nn.ModuleList()
        self.weigh: nn.Conv2d | None = None
        if fusion == "adaptive" and scales > 1:
            gated = hidden_channels
            if gate == "bottleneck":
                gated = _GATE_CHANNELS
                self.gates.extend(_conv_norm_relu(hidden_channels, gated) for _ in range(scales))
            self.weigh = nn.Conv2d(scales * gated, scales, 1)
        fused = scales * hidden_channels if fusion == "cat" else hidden_channels
        self.project = _conv_norm_relu(fused, out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize weights as the authors do: normal, variance 2 / (kernel area x outputs)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        r"""Return the motion features of every frame.

        Args:
            maps: one tensor a scale, (B, T, :math:`C_l`, :math:`s_l` h, :math:`s_l` w) with
                :math:`s_l` of `strides`. In training T is at least 2.

        Returns:
            (B, T, h, w, C').

        Raises:
            ValueError: maps that do not fit, or a single frame in training.
        """
        self._check(maps)
        batch, length = maps[0].shape[:2]
        motion = [
            self._motion(scale, feature_map)
            for scale, feature_map in zip(self.scales, maps, strict=True)
        ]
        out = self.project(self._fuse(motion))
        return out.permute(0, 2, 3, 1).unflatten(0, (batch, length))

    if TYPE_CHECKING:
        __call__ = forward

    def _motion(self, scale: nn.Module, feature_map: Tensor) -> Tensor:
        """Return the averaged motion at one scale, (B T, P, h, w)."""
        k = self.num_adjacent
        difference = feature_map[:, 1:] - feature_map[:, :-1]
        if self.padding == "repeat":
            difference = F.pad(difference, (0, 0, 0, 0, 0, 0, k, k))
        motion = scale(difference.flatten(0, 1))
        size = motion.shape[1:]
        sequence = motion.unflatten(0, difference.shape[:2]).flatten(2)
        if self.padding == "zeros":
            sequence = F.pad(sequence, (0, 0, k, k))
        # Time as the height of an image: its mean over a window needs no copy in another order.
        average = F.avg_pool2d(sequence.unsqueeze(1), (2 * k, 1), stride=1)
        return average.squeeze(1).flatten(0, 1).unflatten(1, size)

    def _fuse(self, motion: list[Tensor]) -> Tensor:
        if self.fusion == "cat":
            return torch.cat(motion, dim=1)
        if self.weigh is None:
            return sum(motion[1:], motion[0])
        gates = motion
        if self.gate == "bottleneck":
            gates = [gate(scale) for gate, scale in zip(self.gates, motion, strict=True)]
        weights = self.weigh(torch.cat(gates, dim=1)).softmax(1)
        weighted = [weights[:, i : i + 1] * scale for i, scale in enumerate(motion)]
        return sum(weighted[1:], weighted[0])

    def _check(self, maps: Sequence[Tensor]) -> None:
        if len(maps) != len(self.in_channels):
            raise ValueError(f"maps must be {len(self.in_channels)}, one a scale, got {len(maps)}")
        first = maps[0]
        check_shape("maps[0]", first, "B T C H W")
        batch, length = first.shape[:2]
        height, width = (side // self.strides[0] for side in first.shape[3:])
        expected = zip(maps, self.in_channels, self.strides, strict=True)
        for index, (feature_map, channels, stride) in enumerate(expected):
            sizes = {"B": batch, "T": length, "C": channels}
            sizes |= {"H": stride * height, "W": stride * width}
            check_shape(f"maps[{index}]", feature_map, "B T C H W", **sizes)
        if self.training and length < 2:
            raise ValueError(f"maps must have 2 frames or more in training, got {length}")

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, strides={self.strides}, hidden={self.hidden_channels}, "
            f"out={self.out_channels}, k={self.num_adjacent}, fusion={self.fusion!r}, "
            f"padding={self.padding!r}, gate={self.gate!r}"
        )


def _conv_norm_relu(in_channels: int, out_channels: int, kernel_size: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride=kernel_size),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
