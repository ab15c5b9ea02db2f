"""ResT-Lite: the authors' key tree, counts and attention, and timm's interface."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from helpers.key_tree import expand
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from aurel.backbones import rest_blocks
from aurel.backbones.rest_blocks import Attention, Block, PixelAttention, Stem
from aurel.backbones.rest_lite import ResT

# The parameters of the published checkpoint. C: convolution, L: linear, b: with bias.
KEY_TREE = """
stem.conv1                        C(32,3,3,3)
stem.norm1                        BN(32)
stem.conv2                        C(32,32,3,3)
stem.norm2                        BN(32)
stem.conv3                        C(64,32,3,3)
stem.pos.pa_conv                  Cb(64,1,3,3)
patch_embed_2.conv                Cb(128,64,3,3)
patch_embed_2.norm                BN(128)
patch_embed_2.pos.pa_conv         Cb(128,1,3,3)
patch_embed_3.conv                Cb(256,128,3,3)
patch_embed_3.norm                BN(256)
patch_embed_3.pos.pa_conv         Cb(256,1,3,3)
patch_embed_4.conv                Cb(512,256,3,3)
patch_embed_4.norm                BN(512)
patch_embed_4.pos.pa_conv         Cb(512,1,3,3)
stage1.{0,1}.{norm1,norm2}        LN(64)
stage1.{0,1}.attn.{q,proj}        Lb(64,64)
stage1.{0,1}.attn.kv              Lb(128,64)
stage1.{0,1}.attn.sr              Cb(64,1,9,9)
stage1.{0,1}.attn.sr_norm         LN(64)
stage1.{0,1}.mlp.fc1              Lb(256,64)
stage1.{0,1}.mlp.fc2              Lb(64,256)
stage2.{0,1}.{norm1,norm2}        LN(128)
stage2.{0,1}.attn.{q,proj}        Lb(128,128)
stage2.{0,1}.attn.kv              Lb(256,128)
stage2.{0,1}.attn.sr              Cb(128,1,5,5)
stage2.{0,1}.attn.sr_norm         LN(128)
stage2.{0,1}.attn.transform_conv  Cb(2,2,1,1)
stage2.{0,1}.mlp.fc1              Lb(512,128)
stage2.{0,1}.mlp.fc2              Lb(128,512)
stage3.{0,1}.{norm1,norm2}        LN(256)
stage3.{0,1}.attn.{q,proj}        Lb(256,256)
stage3.{0,1}.attn.kv              Lb(512,256)
stage3.{0,1}.attn.sr              Cb(256,1,3,3)
stage3.{0,1}.attn.sr_norm         LN(256)
stage3.{0,1}.attn.transform_conv  Cb(4,4,1,1)
stage3.{0,1}.mlp.fc1              Lb(1024,256)
stage3.{0,1}.mlp.fc2              Lb(256,1024)
stage4.{0,1}.{norm1,norm2}        LN(512)
stage4.{0,1}.attn.{q,proj}        Lb(512,512)
stage4.{0,1}.attn.kv              Lb(1024,512)
stage4.{0,1}.attn.transform_conv  Cb(8,8,1,1)
stage4.{0,1}.mlp.fc1              Lb(2048,512)
stage4.{0,1}.mlp.fc2              Lb(512,2048)
norm                              LN(512)
head                              Lb(1000,512)
"""


@pytest.fixture(scope="module")
def lite() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("rest_lite").eval()


@pytest.fixture
def tiny() -> nn.Module:
    return timm.create_model("rest_tiny", num_classes=7).eval()


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_key_tree(lite: nn.Module) -> None:
    actual = {name: tuple(tensor.shape) for name, tensor in lite.state_dict().items()}
    assert actual == expand(KEY_TREE)
    assert len(actual) == 194


def test_parameter_counts(lite: nn.Module, tiny: nn.Module) -> None:
    assert parameters(lite) == 10_508_300
    assert parameters(lite) - parameters(lite.head) == 9_995_300
    counts = {
        "stem": 29_280,
        "stage1": 110_720,
        "patch_embed_2": 75_392,
        "stage2": 403_724,
        "patch_embed_3": 298_240,
        "stage3": 1_585_704,
        "patch_embed_4": 1_186_304,
        "stage4": 6_304_912,
    }
    assert {name: parameters(getattr(lite, name)) for name in counts} == counts
    assert sum(buffer.numel() for buffer in lite.buffers()) == 1_925
    assert parameters(tiny) < 400_000


@pytest.mark.parametrize(("size", "millions"), [(224, 1533.1), (256, 2032.2)])
def test_multiply_adds(size: int, millions: float) -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        ResT().eval()(torch.empty(1, 3, size, size))
    assert round(counter.get_total_flops() / 2e6, 1) == millions


def test_siblings_of_the_paper() -> None:
    with torch.device("meta"):
        assert parameters(ResT(depths=(2, 2, 6, 2))) == 13_679_708
        assert parameters(ResT(dims=(96, 192, 384, 768), depths=(2, 2, 6, 2))) == 30_327_052


@pytest.mark.parametrize(
    ("height", "width", "sizes"),
    [
        (224, 224, [(56, 56), (56, 56), (28, 28), (14, 14), (7, 7)]),
        (96, 96, [(24, 24), (24, 24), (12, 12), (6, 6), (3, 3)]),
        (112, 230, [(28, 58), (28, 58), (14, 29), (7, 15), (4, 8)]),
        (33, 17, [(9, 5), (9, 5), (5, 3), (3, 2), (2, 1)]),
    ],
)
def test_map_sizes(tiny: nn.Module, height: int, width: int, sizes: list[tuple[int, int]]) -> None:
    images = torch.randn(1, 3, height, width)
    maps = tiny.forward_intermediates(images, intermediates_only=True)
    assert [tuple(level.shape[-2:]) for level in maps] == sizes
    assert [level.shape[1] for level in maps] == [16, 16, 32, 64, 128]
    assert tiny(images).shape == (1, 7)


def attention_oracle(attention: Attention, x: Tensor, height: int, width: int) -> np.ndarray:
    """Follow steps 1 to 6 of the published attention in float64, head by head."""
    state = {name: value.numpy() for name, value in attention.state_dict().items()}
    tokens = x.numpy()
    batch, count, channels = tokens.shape
    heads, size = attention.heads, channels // attention.heads
    reduced = tokens
    if attention.sr is not None:
        stride, kernel = attention.sr.stride[0], attention.sr.kernel_size[0]
        grid = tokens.reshape(batch, height, width, channels)
        padding = stride // 2
        grid = np.pad(grid, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        rows = range(0, grid.shape[1] - kernel + 1, stride)
        columns = range(0, grid.shape[2] - kernel + 1, stride)
        weight = state["sr.weight"][:, 0].transpose(1, 2, 0)
        cells = [
            (grid[:, r : r + kernel, c : c + kernel] * weight).sum((1, 2)) + state["sr.bias"]
            for r in rows
            for c in columns
        ]
        reduced = np.stack(cells, axis=1)
        reduced = reduced - reduced.mean(-1, keepdims=True)
        reduced = reduced / np.sqrt((reduced**2).mean(-1, keepdims=True) + 1e-5)
        reduced = reduced * state["sr_norm.weight"] + state["sr_norm.bias"]
    query = tokens @ state["q.weight"].T + state["q.bias"]
    both = reduced @ state["kv.weight"].T + state["kv.bias"]
    key, value = both[..., :channels], both[..., channels:]
    out = np.zeros((batch, count, channels))
    for b in range(batch):
        parts = [slice(h * size, (h + 1) * size) for h in range(heads)]
        scores = np.stack([query[b, :, p] @ key[b, :, p].T * size**-0.5 for p in parts])
        if heads > 1:
            mix = state["transform_conv.weight"][:, :, 0, 0]
            scores = np.einsum("gh,hnm->gnm", mix, scores)
            scores = scores + state["transform_conv.bias"][:, None, None]
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights = weights / weights.sum(-1, keepdims=True)
        if heads > 1:
            mean = weights.mean((1, 2), keepdims=True)
            variance = weights.var((1, 2), keepdims=True)
            weights = (weights - mean) / np.sqrt(variance + 1e-5)
        for h, p in enumerate(parts):
            out[b, :, p] = weights[h] @ value[b, :, p]
    return out @ state["proj.weight"].T + state["proj.bias"]


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("sr_ratio", [1, 2, 4])
@pytest.mark.parametrize("training", [True, False])
def test_attention_equals_the_publication(heads: int, sr_ratio: int, training: bool) -> None:
    attention = Attention(8, heads, sr_ratio).double().train(training).requires_grad_(False)
    for parameter in attention.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 5 * 7, 8, dtype=torch.float64)
    expected = attention_oracle(attention, x, 5, 7)
    np.testing.assert_allclose(attention(x, 5, 7).numpy(), expected, atol=1e-10)


def test_attention_norms_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = rest_blocks.F.layer_norm

    def spy(x: Tensor, shape: torch.Size, *args: object, **options: object) -> Tensor:
        calls.append((x.dtype, options.get("eps")))
        return real(x, shape, *args, **options)

    monkeypatch.setattr(rest_blocks.F, "layer_norm", spy)
    attention = Attention(8, 2, 1).bfloat16()
    out = attention(torch.randn(1, 6, 8, dtype=torch.bfloat16), 2, 3)
    assert out.dtype == torch.bfloat16
    assert calls == [(torch.float32, 1e-5)]


def test_pixel_attention_and_stem() -> None:
    attention = PixelAttention(3)
    x = torch.randn(2, 3, 5, 5)
    gate = nn.functional.conv2d(x, attention.pa_conv.weight, attention.pa_conv.bias, 1, 1, 1, 3)
    torch.testing.assert_close(attention(x), x * torch.sigmoid(gate))
    stem = Stem(3, 8).eval()
    hidden = torch.relu(stem.norm1(stem.conv1(x)))
    hidden = stem.conv3(torch.relu(stem.norm2(stem.conv2(hidden))))
    torch.testing.assert_close(stem(x), stem.pos(hidden))
    assert (hidden < 0).any()


def test_smallest_image_trains() -> None:
    model = timm.create_model("rest_tiny", num_classes=2).train()
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_gradients_are_right() -> None:
    block = Block(4, 2, 2, 0.0).double()
    x = torch.randn(1, 12, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda tokens: block(tokens, 3, 4), x)


def test_samples_do_not_meet(tiny: nn.Module) -> None:
    images = torch.randn(3, 3, 64, 64)
    clean = tiny(images)
    images[1] = torch.nan
    out = tiny(images)
    torch.testing.assert_close(out[[0, 2]], clean[[0, 2]])
    assert out[1].isnan().all()


def test_drop_path_grows_linearly() -> None:
    model = ResT(drop_path_rate=0.1)
    rates = [
        block.drop_path.drop_prob
        for stage in range(1, 5)
        for block in getattr(model, f"stage{stage}")
    ]
    np.testing.assert_allclose(rates, np.linspace(0, 0.1, 8))


def test_initial_weights(lite: nn.Module) -> None:
    for name, module in lite.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and module.weight.numel() > 2000:
            assert 0.018 < module.weight.std() < 0.022, name
        if isinstance(module, nn.Linear):
            assert not module.bias.any(), name


def test_classifier(tiny: nn.Module) -> None:
    images = torch.randn(2, 3, 64, 64)
    pooled = tiny.forward_features(images).mean((2, 3))
    torch.testing.assert_close(tiny(images), tiny.head(pooled))
    torch.testing.assert_close(tiny.forward_head(tiny.forward_features(images), True), pooled)
    assert tiny.get_classifier() is tiny.head
    tiny.reset_classifier(12)
    assert tiny(images).shape == (2, 12) and tiny.num_classes == 12
    tiny.reset_classifier(0)
    torch.testing.assert_close(tiny(images), pooled)
    tiny.reset_classifier(0, "")
    assert tiny(images).shape == (2, 128, 2, 2)
    assert timm.create_model("rest_tiny", num_classes=0)(images).shape == (2, 128)
    assert timm.create_model("rest_tiny", num_classes=12)(images).shape == (2, 12)


def test_final_norm_is_for_the_last_map_only(tiny: nn.Module) -> None:
    images = torch.randn(2, 3, 64, 64)
    final, raw = tiny.forward_intermediates(images)
    normed = tiny.forward_intermediates(images, norm=True, intermediates_only=True)
    torch.testing.assert_close(raw[:-1], normed[:-1])
    torch.testing.assert_close(normed[-1], final)
    torch.testing.assert_close(final, tiny.forward_features(images))
    last = raw[-1]
    expected = (last - last.mean(1, True)) / (last.var(1, False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(final, expected)


def test_indices_of_intermediates(tiny: nn.Module) -> None:
    images = torch.randn(1, 3, 64, 64)
    every = tiny.forward_intermediates(images, intermediates_only=True)
    for indices, expected in ((2, [3, 4]), ([1, 3], [1, 3]), ([-1], [4]), (None, range(5))):
        maps = tiny.forward_intermediates(images, indices, stop_early=True, intermediates_only=True)
        torch.testing.assert_close(maps, [every[tap] for tap in expected])
    final, maps = tiny.forward_intermediates(images, [1], stop_early=True)
    assert len(maps) == 1
    torch.testing.assert_close(final, every[1])
    with pytest.raises(IndexError, match="indices must be in -5..4"):
        tiny.forward_intermediates(images, [5])
    with pytest.raises(ValueError, match="output_fmt must be 'NCHW', got 'NLC'"):
        tiny.forward_intermediates(images, output_fmt="NLC")


def test_pruned_model_keeps_what_its_taps_need(tiny: nn.Module) -> None:
    images = torch.randn(1, 3, 64, 64)
    every = tiny.forward_intermediates(images, intermediates_only=True)
    assert tiny.prune_intermediate_layers([0, 2]) == [0, 2]
    maps = tiny.forward_intermediates(images, [0, 2], intermediates_only=True)
    torch.testing.assert_close(maps, [every[0], every[2]])
    assert tiny.num_features == 32
    sum(level.sum() for level in maps).backward()
    assert all(parameter.grad is not None for parameter in tiny.parameters())


@pytest.mark.parametrize("feature_cls", ["list", "getter"])
def test_features_only_equals_the_plain_model(tiny: nn.Module, feature_cls: str) -> None:
    overlay = {"state_dict": tiny.state_dict()}
    wrapped = timm.create_model(
        "rest_tiny",
        pretrained=True,
        pretrained_cfg_overlay=overlay,
        features_only=True,
        out_indices=(0, 1, 2, 3, 4),
        feature_cls=feature_cls,
    ).eval()
    assert wrapped.feature_info.channels() == [16, 16, 32, 64, 128]
    assert wrapped.feature_info.reduction() == [4, 4, 8, 16, 32]
    images = torch.randn(1, 3, 80, 80)
    maps = tiny.forward_intermediates(images, intermediates_only=True)
    torch.testing.assert_close(wrapped(images), maps)


def test_recomputing_activations_changes_no_gradient(tiny: nn.Module) -> None:
    images = torch.randn(2, 3, 64, 64)

    def gradients() -> list[Tensor]:
        tiny.train().zero_grad()
        tiny(images).square().sum().backward()
        return [parameter.grad.clone() for parameter in tiny.parameters()]

    plain = gradients()
    tiny.set_grad_checkpointing()
    assert tiny.stage1.grad_checkpointing and tiny.stage4.grad_checkpointing
    for actual, expected in zip(gradients(), plain, strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(("coarse", "groups"), [(False, 13), (True, 6)])
def test_groups_follow_depth(lite: nn.Module, coarse: bool, groups: int) -> None:
    from timm.models import group_parameters

    matched = group_parameters(lite, lite.group_matcher(coarse), reverse=True)
    assert set(matched) == {name for name, _ in lite.named_parameters()}
    order = ["stem.conv1", "stage1.0.mlp.fc1", "patch_embed_2.conv", "stage2.0.mlp.fc1"]
    order += ["stage3.1.mlp.fc1", "stage4.0.mlp.fc1", "head"]
    layers = [matched[f"{name}.weight"] for name in order]
    assert layers == sorted(layers) and len(set(layers)) >= 5
    assert len(set(matched.values())) == groups


def test_registry() -> None:
    assert {"rest_lite", "rest_tiny"} <= set(timm.list_models("rest_*"))
    assert not timm.list_pretrained("rest_*")
    config = timm.get_pretrained_cfg("rest_lite")
    assert config.tag == "in1k" and config.input_size == (3, 224, 224)
    with pytest.raises(RuntimeError, match="No pretrained weights exist"):
        timm.create_model("rest_tiny", pretrained=True)
