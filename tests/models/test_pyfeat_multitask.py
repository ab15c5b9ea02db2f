"""py-feat 2: a file with the authors' keys gives the numbers of a plain implementation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from aurel.models import create_model, load_author_checkpoint
from aurel.models.author_keys.pyfeat_multitask import LAYOUT
from aurel.models.pyfeat_multitask import NearestMean
from aurel.weights import weights_info

State = dict[str, Tensor]
AUS, WIDTH = 7, 16
SMALL = {"backbone": "test_convnext2", "channels": WIDTH}


def author_state(backbone: str, aus: int, width: int) -> tuple[Any, State]:
    """Return timm's backbone of feature maps, and a state dict of the model with its weights."""
    base = timm.create_model(backbone, features_only=True, out_indices=[-2, -1]).eval()
    state = {f"backbone.{name}": value for name, value in base.state_dict().items()}
    last = base.feature_info.channels()[-1]
    state["proj.weight"] = torch.randn(width, last, 1, 1) / last**0.5
    for node in range(aus):
        head = f"afg.heads.{node}"
        state[f"{head}.0.weight"] = torch.randn(width, width, 1, 1) / width**0.5
        for entry in ("weight", "bias", "running_mean", "running_var"):
            state[f"{head}.1.{entry}"] = torch.rand(width) + 0.2
        state[f"{head}.1.num_batches_tracked"] = torch.tensor(5)
    for name in ("W", "W_self"):
        state[f"fgg.{name}.weight"] = torch.randn(width, width) / width**0.5
    state["sc.s"] = torch.randn(aus, width)
    others = ("lmk.mlp.0.weight", "pose.mlp.0.bias", "blendshape.proj_lmk.weight", "log_var_au")
    more = ("unified.norm_bb.weight", "emotion.cls_head.weight", "gaze.left.0.weight")
    return base, state | {key: torch.zeros(2) for key in (*others, *more, "gaze_eye_enc.proj.bias")}


def plain(base: Any, state: State, images: Tensor, k: int = 4) -> Tensor:
    """Return the probabilities, one image, AU and neighbor after the other, in float64."""
    maps = base(images)[-1].detach().double().flatten(2)
    rows = []
    for face in maps:
        tokens = state["proj.weight"].double().flatten(1) @ face
        nodes = []
        for node in range(AUS):
            head = {
                e: state[f"afg.heads.{node}.1.{e}"].double()[:, None]
                for e in ("weight", "bias", "running_mean", "running_var")
            }
            x = state[f"afg.heads.{node}.0.weight"].double().flatten(1) @ tokens
            x = (x - head["running_mean"]) / (head["running_var"] + 1e-5).sqrt()
            nodes.append((x * head["weight"] + head["bias"]).clamp(min=0).mean(1))
        row = []
        for i, node in enumerate(nodes):
            cosines = [float(F.cosine_similarity(node, other, dim=0)) for other in nodes]
            best = sorted(range(AUS), key=lambda j: -cosines[j])[: k + 1]  # noqa: B023
            sources = [nodes[j] for j in best if j != i]
            mean = sum(state["fgg.W.weight"].double() @ x for x in sources) / len(sources)
            out = (state["fgg.W_self.weight"].double() @ node + mean).clamp(min=0)
            prototype = state["sc.s"][i].double().clamp(min=0)
            row.append(F.cosine_similarity(out, prototype, dim=0))
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.fixture
def author() -> tuple[Any, State]:
    return author_state(SMALL["backbone"], AUS, WIDTH)


def new_model(**options: Any) -> Any:
    return create_model("pyfeat_multitask", aus=[1, 2, 4, 6, 12, 15, 25], **{**SMALL, **options})


def test_the_authors_numbers(author: tuple[Any, State]) -> None:
    base, state = author
    model = load_author_checkpoint(new_model(), state).eval()
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        out = model(images, return_graph=True)
    torch.testing.assert_close(out.probs.double(), plain(base, state, images), rtol=0, atol=2e-5)
    assert out.probs.std() > 0.01
    edges = out.graphs[0].edges()
    assert (edges.sum(-1) == 4).all() and not edges.diagonal(dim1=1, dim2=2).any()


def test_a_node_of_zeros_keeps_all_neighbors() -> None:
    layer = NearestMean(3, 1).double()
    x = torch.eye(3, dtype=torch.float64)[None].clone()
    x[0, 2] = 0
    out, neighbors = layer(x)
    assert (neighbors[0, 2] >= 0).all()
    messages = x[0, :2] @ layer.message.weight.T
    torch.testing.assert_close(out[0, 2], messages.mean(0).clamp(min=0))


def written(path: Path, state: State, config: dict[str, Any]) -> Path:
    save_file({k: v.contiguous() for k, v in state.items()}, path, {"config": json.dumps(config)})
    return path


def test_a_safetensors_file_with_the_authors_options(
    author: tuple[Any, State], tmp_path: Path
) -> None:
    config = {"knn_k": 4, "drop_mefl": True, "n_au": AUS, "image_size": 224}
    file = written(tmp_path / "a.safetensors", author[1], config)
    model = load_author_checkpoint(new_model(), file)
    assert torch.equal(model.classifier.prototypes, author[1]["sc.s"])


@pytest.mark.parametrize("other", [{"knn_k": 3}, {"drop_mefl": False}, {"n_au": 20}])
def test_a_file_with_other_options_is_refused(
    author: tuple[Any, State], tmp_path: Path, other: dict[str, Any]
) -> None:
    config = {"knn_k": 4, "drop_mefl": True, "n_au": AUS, **other}
    file = written(tmp_path / "a.safetensors", author[1], config)
    with pytest.raises(ValueError, match=f"got {other}".replace("{", r"\{").replace("}", r"\}")):
        load_author_checkpoint(new_model(), file)


def test_edge_layers_of_an_older_file_are_superfluous(author: tuple[Any, State]) -> None:
    with pytest.raises(ValueError, match="superfluous: mefl.alpha"):
        load_author_checkpoint(new_model(), {**author[1], "mefl.alpha": torch.zeros(1)})


def test_the_full_size_has_the_keys_of_the_authors_backbone() -> None:
    entry = weights_info("pyfeat_multitask")
    with torch.device("meta"):
        model = create_model("pyfeat_multitask", aus=entry.aus)
        _, state = author_state("convnextv2_tiny", 20, 512)
    shapes = LAYOUT.shapes(model)
    own = {key: value for key, value in state.items() if not key.startswith(LAYOUT.other_heads)}
    assert set(shapes) == set(own)
    assert all(shapes[key] == tuple(own[key].shape) for key in own)
