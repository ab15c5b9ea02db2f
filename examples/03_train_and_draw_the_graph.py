"""
Train on synthetic faces and draw the graph
===========================================

The faces that come with the library are rendered, and their AUs occur together as in BP4D. A small
SACL model is trained on them within seconds, and its graph is drawn on a face.
"""

import torch
from torch.utils.data import DataLoader

from aurel.data import SyntheticFaces
from aurel.losses import landmark_alignment_loss, weighted_asymmetric_loss
from aurel.metrics import AUScores
from aurel.models import create_model
from aurel.viz.face_graph import draw_face_graph
from aurel.viz.mean_graph import au_adjacency, mean_graphs
from aurel.viz.prediction_sheet import draw_prediction_sheet

torch.manual_seed(0)
options = {"per_subject": 20, "size": 48, "occlusion": 0, "faintest": 0.4}
train = SyntheticFaces("BP4D", subjects=range(32), **options)
test = SyntheticFaces("BP4D", subjects=range(100, 108), **options)  # other subjects

small = {"dims": (32,), "depths": (1,), "token_dim": 16, "landmark_widths": (8, 16, 32)}
model = create_model("sacl", aus="BP4D", backbone="test_resnet", image_size=48, **small)
optimizer = torch.optim.AdamW(model.parameters())
batches = DataLoader(train, batch_size=16, shuffle=True)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=3 * len(batches))
for epoch in range(3):
    for batch in batches:
        output = model(batch["image"])
        loss = weighted_asymmetric_loss(output.probs, batch["labels"])
        loss += 0.5 * landmark_alignment_loss(output.landmarks, batch["landmarks"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    print(f"epoch {epoch + 1}: loss of the last batch {loss.item():.3f}")

# %%
# Test it on other subjects. Scores on synthetic faces do not predict scores on photographs.

model.eval()
scores = AUScores(test.aus)
with torch.no_grad():
    probs = torch.cat([model(batch["image"]).probs for batch in DataLoader(test, batch_size=80)])
scores.update(probs, test.labels)
print({key: round(value, 2) for key, value in scores.compute()["mean"].items()})

pictures = test.images[::20].permute(0, 2, 3, 1)  # one face of each of eight subjects
draw_prediction_sheet(pictures, test.labels[::20], probs[::20], test.aus.names, "predictions.png")

# %%
# How often a region of AU j is a neighbor of a region of AU i, on the test faces.

images = (batch["image"] for batch in DataLoader(test, batch_size=100))
adjacency, aus = au_adjacency(model, mean_graphs(model, images)[-1])
draw_face_graph(adjacency, aus.names, "graph.png", title="graph of the last block")
