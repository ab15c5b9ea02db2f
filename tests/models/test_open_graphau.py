"""OpenGraphAU: the numbers of the authors, the nodes of lateral AUs, the start of stage 2."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_models import evaluate_after_one_step, small_images, small_model
from test_author_checkpoint import BENCHMARKS, Released, count_parameters, histogram, numbered
from torch import Tensor, nn
from torch.nn import functional as F

from aurel.facs import AU_SETS, OPENGRAPHAU_PARENTS_CORRECTED, OPENGRAPHAU_PARENTS_RELEASED, AUSet
from aurel.models.author_checkpoint import load_author_checkpoint
from aurel.models.checkpoint import load_model, save_model
from aurel.models.open_graphau import nodes_read, start_from_stage1
from aurel.models.registry import create_model, info_of

sys.path.insert(0, str(BENCHMARKS))
from plain_me_graphau import Edges, LinearBlock, PlainMEGraphAU, TopKGraph  # noqa: E402

sys.path.remove(str(BENCHMARKS))

OPENGRAPHAU = AU_SETS["OpenGraphAU"]
STAGES = {1: "open_graphau_stage1", 2: "open_graphau"}
stages = pytest.mark.parametrize("stage", STAGES)

# Backbone, parameters of stage 1 and 2: the released models.
SIZES = {
    "resnet18": (11_733_494, 11_951_298),
    "resnet50": (32_223_862, 35_637_698),
    "swin_tiny_patch4_window7_224": (32_139_312, 34_061_820),
    "swin_small_patch4_window7_224": (53_457_216, 55_379_724),
    "swin_base_patch4_window7_224": (94_934_766, 98_348_602),
    "vit_base_patch16_sincos": (90_257_334, 92_179_842),
}


@pytest.mark.parametrize("backbone", SIZES)
def test_sizes_are_those_of_the_released_models(backbone: str) -> None:
    with torch.device("meta"):
        models = [create_model(name, num_aus=41, backbone=backbone) for name in STAGES.values()]
    sizes = tuple(sum(p.numel() for p in model.parameters()) for model in models)
    assert sizes == SIZES[backbone]


@stages
def test_every_value_comes_from_the_file(released: Released, stage: int) -> None:
    shapes = released(f"open_graphau_stage{stage}_resnet50")
    author = numbered(shapes)
    model = create_model(STAGES[stage], num_aus=41)
    assert sum(parameter.numel() for parameter in model.parameters()) == count_parameters(shapes)
    for tensor in model.state_dict().values():
        tensor.fill_(len(author))
    load_author_checkpoint(model, {"state_dict": {f"module.{k}": v for k, v in author.items()}})
    bins = len(author) + 1
    assert torch.equal(histogram(model.state_dict(), bins), histogram(author, bins))
    prototypes = model.head.classifier.prototypes
    assert (prototypes[:27] == author["head.main_sc"]).all()
    assert (prototypes[27:] == author["head.sub_sc"]).all()
    if stage == 1:
        assert model.config.ties == model.head.relation.ties == "all"
        assert model.config.k == 4


def masked_autoencoder_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shapes of the released encoder, without class token, positions, bias of keys."""

    def affine(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}

    shapes = affine("patch_embed.proj", 768, 3, 16, 16)
    for block in (f"blocks.{index}" for index in range(12)):
        shapes.update(affine(f"{block}.norm1", 768))
        shapes.update({f"{block}.attn.{bias}": (768,) for bias in ("q_bias", "v_bias")})
        shapes[f"{block}.attn.qkv.weight"] = (2304, 768)
        shapes.update(affine(f"{block}.attn.proj", 768, 768))
        shapes.update(affine(f"{block}.norm2", 768))
        shapes.update(affine(f"{block}.mlp.fc1", 3072, 768))
        shapes.update(affine(f"{block}.mlp.fc2", 768, 3072))
    return {**shapes, **affine("norm", 768)}


@stages
def test_names_of_the_masked_autoencoder(stage: int) -> None:
    with torch.device("meta"):
        model = create_model(STAGES[stage], num_aus=41, backbone="vit_base_patch16_sincos")
        layout = info_of(model).author_layout
        assert layout is not None
        author = {name: torch.empty(shape) for name, shape in layout.shapes(model).items()}
    prefix = "backbone.encoder."
    found = {key: value for key, value in author.items() if key.startswith("backbone.")}
    assert {key.removeprefix(prefix): tuple(value.shape) for key, value in found.items()} == (
        masked_autoencoder_shapes()
    )
    assert author["global_linear.fc.weight"].shape == (384, 768)
    converted = layout.convert(author, model)
    model.load_state_dict(converted, assign=True)
    for key in masked_autoencoder_shapes():
        assert converted[f"backbone.net.{key}"] is author[f"{prefix}{key}"]


class GatedLayer(nn.Module):
    """The authors' graph layer: the ReLU comes before the residual."""

    def __init__(self, channels: int, nodes: int) -> None:
        super().__init__()
        for matrix in "UVABE":
            self.add_module(matrix, nn.Linear(channels, channels, bias=False))
        self.bnv = nn.BatchNorm1d(nodes)
        self.bne = nn.BatchNorm1d(nodes**2)

    def forward(self, x: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        nodes = x.shape[1]
        u, v, a, b, e = (self.get_submodule(name) for name in "UVABE")
        pairs = a(x).repeat_interleave(nodes, dim=1) + b(x).repeat(1, nodes, 1)
        edges = edges + self.bne(pairs + e(edges)).relu()
        gates = edges.sigmoid().unflatten(1, (nodes, nodes)).softmax(2)
        message = (gates * v(x)[:, None]).sum(2) / nodes
        return x + self.bnv(u(x) + message).relu(), edges


class GatedGraph(nn.Module):
    def __init__(self, channels: int, nodes: int) -> None:
        super().__init__()
        self.graph_layers = nn.ModuleList(GatedLayer(channels, nodes) for _ in range(2))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        for layer in self.graph_layers:
            x, edges = layer(x, edges)
        return x


class PlainHead(nn.Module):
    """The authors' head, with their names and their list of main AUs of the lateral ones."""

    def __init__(self, channels: int, stage: int) -> None:
        super().__init__()
        self.main_class_linears = nn.ModuleList(LinearBlock(channels, channels) for _ in range(27))
        self.main_sc = nn.Parameter(torch.randn(27, channels))
        self.sub_sc = nn.Parameter(torch.randn(14, channels))
        self.stage = stage
        self.gnn: nn.Module = TopKGraph(channels, 27, 4)
        if stage == 2:
            self.edge_extractor = Edges(channels, 27)
            self.gnn = GatedGraph(channels, 27)

    def forward(self, tokens: Tensor) -> Tensor:
        node_tokens = torch.stack([block(tokens) for block in self.main_class_linears], dim=1)
        x = node_tokens.mean(2)
        edges = (self.edge_extractor(node_tokens, tokens),) if self.stage == 2 else ()
        x = self.gnn(x, *edges)
        outputs = [F.cosine_similarity(x, self.main_sc.relu(), dim=-1)]
        for pair, main in enumerate([0, 1, 2, 4, 7, 8, 11]):
            for side in range(2):
                prototype = self.sub_sc[2 * pair + side].relu()
                outputs.append(F.cosine_similarity(x[:, main], prototype, dim=-1)[:, None])
        return torch.cat(outputs, dim=1)


def plain(stage: int) -> Any:
    """Return the authors' model, with statistics that are not the initial ones."""
    model = PlainMEGraphAU("resnet18", 1, 1)
    model.head = PlainHead(128, stage)  # type: ignore[assignment]
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(3, 3, 64, 64))
    return model.eval()


@stages
def test_a_loaded_model_gives_the_authors_outputs(stage: int, tmp_path: Path) -> None:
    author = plain(stage)
    torch.save({"state_dict": nn.DataParallel(author).state_dict()}, tmp_path / "author.pth")
    model = create_model(STAGES[stage], num_aus=41, backbone="resnet18").eval()
    lateral_12 = [OPENGRAPHAU.index("L12"), OPENGRAPHAU.index("R12")]
    assert model.head.selection.index[lateral_12].tolist() == [9, 9]
    load_author_checkpoint(model, tmp_path / "author.pth")
    assert model.head.selection.index[lateral_12].tolist() == [8, 8]
    assert model.config.lateral_parents == "released"
    images = torch.randn(2, 3, 64, 64)
    out = model(images)
    torch.testing.assert_close(out.probs, author(images), rtol=1e-4, atol=1e-5)
    assert out.aus == OPENGRAPHAU
    save_model(model, tmp_path / "converted.pth")
    again = load_model(tmp_path / "converted.pth")
    assert torch.equal(again(images).probs, out.probs)


@stages
def test_weights_of_the_authors_are_for_their_aus(stage: int) -> None:
    names = [*OPENGRAPHAU.names[27:], *OPENGRAPHAU.names[:27]]
    model = create_model(STAGES[stage], aus=names, backbone="resnet18")
    with pytest.raises(ValueError, match="41 AUs of the set OpenGraphAU, .*got AU01L"):
        load_author_checkpoint(model, {"head.main_sc": torch.zeros(27, 128)})


@stages
def test_by_default_the_aus_are_those_of_the_authors(stage: int) -> None:
    with torch.device("meta"):
        assert create_model(STAGES[stage], backbone="resnet18").aus == OPENGRAPHAU


def test_nodes_of_the_set_are_those_of_the_authors() -> None:
    main = tuple(range(27))
    assert nodes_read(OPENGRAPHAU, "released") == main + OPENGRAPHAU_PARENTS_RELEASED
    assert nodes_read(OPENGRAPHAU, "corrected") == main + OPENGRAPHAU_PARENTS_CORRECTED
    assert nodes_read(AU_SETS["OpenGraphAU-main"], "released") == main


def test_nodes_of_other_sets() -> None:
    assert nodes_read(AUSet.of(["R12", 4, 12, "L12", 1, "L4"])) == (1, 0, 1, 1, 2, 0)
    assert nodes_read(AUSet.of([12, 11, "L12", "L11"]), "released") == (0, 1, 1, 1)
    assert nodes_read(AUSet.unnamed(3)) == (0, 1, 2)
    assert nodes_read(AUSet.of([26, "L26"]), "released") == (0, 0)


@pytest.mark.parametrize(
    ("aus", "lateral_parents", "message"),
    [
        ([1, "L12", "R4"], "corrected", "'corrected'.*custom without AU12 for AU12L, AU04 for"),
        ([1, 12, "L12"], "released", "without AU11 for AU12L"),
        (["L1", "R1"], "corrected", "without AU01 for AU01L, AU01 for AU01R"),
        ([1], "both", "lateral_parents must be one of corrected, released, got 'both'"),
    ],
)
def test_sets_without_a_main_au_are_refused(
    aus: list[int | str], lateral_parents: str, message: str
) -> None:
    for name in STAGES.values():
        with pytest.raises(ValueError, match=message):
            small_model(name, aus=aus, lateral_parents=lateral_parents)


@stages
def test_a_lateral_au_is_classified_from_its_main_au(stage: int) -> None:
    model = small_model(STAGES[stage], aus=["L12", 1, 12, "R12"])
    evaluate_after_one_step(model)
    images = small_images()
    with torch.no_grad():
        prototypes = model.head.classifier.prototypes
        prototypes[0] = prototypes[2]
        probs = model(images).probs
        torch.testing.assert_close(probs[:, 0], probs[:, 2])
        assert not torch.allclose(probs[:, 3], probs[:, 2])
    graph = model(images, return_graph=True).graphs[0]
    assert graph.adjacency().shape == (3, 2, 2)


@stages
def test_columns_may_stand_in_any_order(stage: int) -> None:
    aus = [1, 12, "L12", "R12"]
    model = small_model(STAGES[stage], aus=aus)
    moved = small_model(STAGES[stage], aus=["R12", 1, "L12", 12])
    order = [3, 0, 2, 1]
    state = model.state_dict()
    name = "head.classifier.prototypes"
    moved.load_state_dict({**state, name: state[name][order]})
    images = small_images()
    with torch.no_grad():
        expected = model.eval()(images).probs[:, order]
        torch.testing.assert_close(moved.eval()(images).probs, expected)


def test_without_sides_stage1_is_that_of_me_graphau() -> None:
    model = small_model(STAGES[1], aus="BP4D")
    other = small_model("me_graphau_stage1", aus="BP4D")
    other.load_state_dict(model.state_dict())
    images = small_images()
    with torch.no_grad():
        assert torch.equal(model.eval()(images).probs, other.eval()(images).probs)


@pytest.mark.parametrize(
    ("aus", "k"), [("OpenGraphAU", 4), ("DISFA", 4), ([1, 12, "L12", "R12"], 2)], ids=str
)
def test_default_k_is_the_authors_or_all_nodes(aus: Any, k: int) -> None:
    model = small_model(STAGES[1], aus=aus)
    assert model.config.k == model.head.relation.k == k


def test_stage2_inherits_from_stage1() -> None:
    stage1, stage2 = small_model(STAGES[1]), small_model(STAGES[2])
    evaluate_after_one_step(stage1)
    before = {key: value.clone() for key, value in stage2.state_dict().items()}
    assert start_from_stage1(stage2, stage1) is stage2
    source = stage1.state_dict()
    for key, value in stage2.state_dict().items():
        inherited = key in source and not key.startswith("head.relation.")
        assert torch.equal(value, source[key] if inherited else before[key]), key


def test_stages_must_fit() -> None:
    aus = [1, 11, 12, "L12"]
    stage2 = small_model(STAGES[2], aus=aus, lateral_parents="released")
    with pytest.raises(ValueError, match="must be released as in stage 2, got corrected"):
        start_from_stage1(stage2, small_model(STAGES[1], aus=aus))
    with pytest.raises(ValueError, match="AUs of stage 1 must be"):
        start_from_stage1(small_model(STAGES[2]), small_model(STAGES[1], aus=aus))
