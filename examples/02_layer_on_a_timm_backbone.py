"""
Relation layers on a backbone of timm
=====================================

`build_backbone` makes any image model of timm return feature maps ``(B, C, H, W)``. Three layers
after it make an AU recognizer: tokens for each AU from the map, a graph convolution between AUs,
and a prototype for each AU.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.utils.data import DataLoader

from aurel.backbones import build_backbone
from aurel.data import SyntheticFaces
from aurel.layers import AUSpecificFeatures, CosineClassifier, TopKGraphConv
from aurel.losses import au_class_weights, weighted_asymmetric_loss


class Recognizer(nn.Module):
    def __init__(self, backbone: str, num_aus: int, channels: int = 64) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, out_indices=(-2,))
        self.features = AUSpecificFeatures(self.backbone.channels[-1], channels, num_aus)
        self.relations = TopKGraphConv(channels, num_aus, k=4)
        self.classifier = CosineClassifier(channels, num_aus)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.backbone(images)[-1].flatten(2).mT  # (B, H * W, C)
        nodes = self.features(tokens).mean(2)  # (B, N, channels)
        return self.classifier(self.relations(nodes))  # (B, N), in [0, 1]


# %%
# "test_resnet" is a small network of timm for tests; "resnet50" or any other name works too.
# ``pretrained=True`` of `build_backbone` would download its published weights.

torch.manual_seed(0)
faces = SyntheticFaces("BP4D", subjects=range(16), per_subject=20, size=64, occlusion=0)
model = Recognizer("test_resnet", len(faces.aus))
weights = au_class_weights(faces.labels)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

losses = []
for _ in range(3):
    for batch in DataLoader(faces, batch_size=32, shuffle=True):
        loss = weighted_asymmetric_loss(model(batch["image"]), batch["labels"], weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

# %%
plt.figure(figsize=(6, 3), layout="constrained")
plt.plot(losses)
plt.xlabel("step")
plt.ylabel("weighted asymmetric loss")
plt.show()
