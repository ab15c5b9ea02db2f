"""A plain implementation of MDHR in eval mode, with the authors' state dict and steps."""

from __future__ import annotations

import timm
import torch
import torch.nn.functional as F
from torch import Tensor

# Per data set: prefix, rows of the 7x7 map, AUs by column.
GROUPS = {
    "BP4D": {
        "up": (0, 3, [0, 1, 2, 4]),
        "mid": (2, 5, [3]),
        "down1": (4, 7, [6, 7, 8]),
        "down2": (4, 7, [5, 9, 10, 11]),
    },
    "DISFA": {"up": (0, 3, [0, 1, 2]), "mid": (2, 5, [3, 4]), "down": (4, 7, [5, 6, 7])},
}


class PlainMDHR:
    """The authors' forward pass.

    Args:
        state: their tensors, by their names.
        aus: "BP4D" or "DISFA".
        backbone: timm's name of a ResNet.
        k: adjacent frames.
    """

    def __init__(self, state: dict[str, Tensor], aus: str, backbone: str, k: int) -> None:
        self.state = state
        self.groups = GROUPS[aus]
        self.num_aus = sum(len(columns) for _, _, columns in self.groups.values())
        self.k = k
        net = timm.create_model(backbone, features_only=True, out_indices=(1, 2, 3, 4))
        own = {key.removeprefix("Backbone."): v for key, v in state.items() if "Backbone." in key}
        self.net = net.to(next(iter(state.values())).dtype).eval()
        self.net.load_state_dict(own)

    def __call__(self, clips: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return probabilities (B T, N) and the logits of each group, (B T, 2^n)."""
        batch, frames = clips.shape[:2]
        maps = self.net(clips.flatten(0, 1))
        tokens = self.block("global_linear", maps[-1].flatten(2).mT)
        tokens = tokens + self.motion(maps, batch, frames).flatten(2).mT
        nodes, logits, active = self.regions(tokens.unflatten(1, (7, 7)))
        nodes = self.attention(nodes, active).unflatten(0, (batch, frames))
        filtered = [
            self.conv1d(f"TCN.temporal_cnn.{n}", nodes[:, :, n].mT).mT for n in range(self.num_aus)
        ]
        nodes = F.relu(self.norm("TCN.bn", torch.stack(filtered, dim=2).flatten(0, 1)))
        prototypes = F.normalize(F.relu(self.state["node_classifier.sc"]), dim=-1)
        return (F.normalize(nodes, dim=-1) * prototypes).sum(-1), logits

    def norm(self, name: str, x: Tensor) -> Tensor:
        s = self.state
        statistics = s[f"{name}.running_mean"], s[f"{name}.running_var"]
        return F.batch_norm(x, *statistics, s[f"{name}.weight"], s[f"{name}.bias"])

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        return F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], stride)

    def conv1d(self, name: str, x: Tensor) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return F.conv1d(x, weight, self.state[f"{name}.bias"], padding=2, groups=len(weight))

    def block(self, name: str, x: Tensor) -> Tensor:
        return F.relu(self.norm(f"{name}.bn", self.linear(f"{name}.fc", x).mT).mT)

    def motion(self, maps: list[Tensor], batch: int, frames: int) -> Tensor:
        k, averages, gates = self.k, [], []
        for scale, feature_map in enumerate(maps, start=1):
            x = feature_map.unflatten(0, (batch, frames))
            moved = self.conv(f"MFD.conv{scale}", (x[:, 1:] - x[:, :-1]).flatten(0, 1), 16 >> scale)
            moved = F.relu(self.norm(f"MFD.bn{scale}", moved)).unflatten(0, (batch, frames - 1))
            average = F.avg_pool3d(moved.transpose(1, 2), (2 * k, 1, 1), 1, (k, 0, 0))
            averages.append(average.transpose(1, 2).flatten(0, 1))
            gate = self.norm(f"MFD.wbn{scale}", self.conv(f"MFD.weight_{scale}", averages[-1]))
            gates.append(F.relu(gate))
        weights = self.conv("MFD.weight", torch.cat(gates, dim=1)).softmax(1)
        fused = sum(weights[:, i, None] * average for i, average in enumerate(averages))
        return F.relu(self.norm("MFD.bn", self.conv("MFD.convcat", fused)))

    def regions(self, face: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        logits: list[Tensor] = []
        nodes = face.new_zeros(len(face), self.num_aus, face.shape[-1])
        active = torch.zeros(len(face), self.num_aus)
        for name, (start, stop, columns) in self.groups.items():
            tokens = face[:, start:stop].flatten(1, 2)
            if f"LRM.{name}_linear.fc.weight" in self.state:
                tokens = self.block(f"LRM.{name}_linear", tokens)
            logits.append(self.linear(f"LRM.{name}_fc", tokens.mean(1)))
            for frame, label in enumerate(logits[-1].argmax(-1).tolist()):
                bits = f"{label:0{len(columns)}b}"
                active[frame, columns] = torch.tensor([float(bit) for bit in bits])
            for column in columns:
                nodes[:, column] = self.block(f"LRM.class_linears.{column}", tokens).mean(1)
        return nodes, logits, active

    def attention(self, nodes: Tensor, active: Tensor) -> Tensor:
        group = torch.zeros(self.num_aus)
        for index, (_, _, columns) in enumerate(self.groups.values()):
            group[columns] = index
        cross = group[:, None] != group
        adjacency = (cross * active[:, None] + torch.eye(self.num_aus)) > 0.1
        z = nodes @ self.state["CRM.gat.linear.weight"].mT
        # The authors call the node in the row the source; it is the target of the messages.
        target = z @ self.state["CRM.gat.scoring_fn_source"][0, 0]
        source = z @ self.state["CRM.gat.scoring_fn_target"][0, 0]
        scores = F.leaky_relu(target[:, :, None] + source[:, None], 0.2)
        weights = scores.masked_fill(~adjacency, -torch.inf).softmax(-1)
        return F.elu(weights @ z + nodes + self.state["CRM.gat.bias"])
