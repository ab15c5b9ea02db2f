"""
A relation layer on your own features
=====================================

A relation layer takes one vector for each action unit. In this example the vectors are random
around three centers, so that the expected groups of neighbors are known: the AUs of a smile, those
of the brows, and the others.
"""

import matplotlib.pyplot as plt
import torch

from aurel.facs import AUSet
from aurel.layers import CosineClassifier, SelfAdjustingGCN

torch.manual_seed(0)
aus = AUSet.of("BP4D")
smile, brows = [aus.index(au) for au in (6, 7, 10, 12)], [aus.index(au) for au in (1, 2, 4)]

centers = torch.randn(3, 64)
group = torch.full((len(aus),), 2)
group[smile], group[brows] = 0, 1
features = centers[group] + 0.7 * torch.randn(32, len(aus), 64)  # 32 faces, 12 AUs, 64 numbers

# %%
# The layer takes nodes ``(B, N, C)`` and computes a new graph in every block. ``mask`` is True for
# valid nodes: in the first half of the batch, AU24 is treated as not annotated.

mask = torch.ones(32, len(aus), dtype=torch.bool)
mask[:16, aus.index(24)] = False

relations = SelfAdjustingGCN(64, 64, dims=(32, 64), depths=(1, 1), k=4)
classifier = CosineClassifier(64, num_nodes=len(aus))

related, graphs = relations(features, mask, return_graph=True)
probs = classifier(related.relu(), mask)  # in [0, 1], and exactly 0 for masked nodes
print(tuple(related.shape), tuple(probs.shape))
print("AU24 where it is masked:", probs[:16, aus.index(24)].unique().tolist())

# %%
# Everything is differentiable except the choice of the neighbors.

probs.mean().backward()
print("every parameter has a gradient:", all(p.grad is not None for p in relations.parameters()))

# %%
# The adjacency of each block, averaged over faces: how often the AU of a column is a neighbor of
# the AU of a row.

figure, panels = plt.subplots(1, len(graphs), figsize=(9, 4.2), layout="constrained")
for panel, graph in zip(panels, graphs, strict=True):
    panel.imshow(graph.edges().float().mean(0), cmap="cividis", vmin=0, vmax=1)
    panel.set_xticks(range(len(aus)), aus.names, rotation=90)
    panel.set_yticks(range(len(aus)), aus.names)
panels[0].set_title("first block: from the features")
panels[1].set_title("second block: after one convolution")
plt.show()
