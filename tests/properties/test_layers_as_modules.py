"""Every layer is a module like any other: moved, copied, hooked, adapted, frozen, recomputed."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from helpers.graph_forms import assert_close
from helpers.layer_cases import CASES, Case, learned, made
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

every_layer = pytest.mark.parametrize("name", CASES)
both_modes = pytest.mark.parametrize("training", [True, False])
MAPS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def assert_alike(actual: Sequence[Tensor], reference: Sequence[Tensor], atol: float = 1e-9) -> None:
    for got, expected in zip(actual, reference, strict=True):
        assert_close(got, expected, atol, atol)


def assert_same_gradients(
    actual: dict[str, Tensor | None], reference: dict[str, Tensor | None]
) -> None:
    assert actual.keys() == reference.keys()
    for name, expected in reference.items():
        got = actual[name]
        assert (got is None) == (expected is None), name
        if got is not None and expected is not None:
            assert_close(got, expected, 1e-8, 1e-8)


def run(
    case: Case, layer: nn.Module, inputs: list[Tensor], mask: Tensor | None
) -> tuple[list[Tensor], dict[str, Tensor | None]]:
    outs = case(layer, inputs, mask)
    return outs, learned(outs, layer)


def maps_of(layer: nn.Module) -> dict[str, Any]:
    return {name: part for name, part in layer.named_modules() if isinstance(part, MAPS)}


def replace(layer: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(layer.get_submodule(parent), child, part)


def spoil(layer: nn.Module) -> None:
    """Write into what `to_empty` leaves: it may hold anything."""
    with torch.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            tensor.fill_(1)


@every_layer
@pytest.mark.parametrize("assign", [False, True])
def test_weights_are_all_that_a_layer_on_the_meta_device_lacks(name: str, assign: bool) -> None:
    case, built = CASES[name], made(name).eval()
    with torch.device("meta"):
        layer = case.make().double().eval()
    if not assign:
        layer.to_empty(device="cpu")
        spoil(layer)
    layer.load_state_dict(built.state_dict(), assign=assign)
    assert {tensor.device.type for tensor in layer.buffers()} <= {"cpu"}
    inputs = case.inputs(2)
    assert_alike(case(layer, inputs), case(built, inputs), 0)


@every_layer
def test_new_parameters_bring_new_constants(name: str) -> None:
    """As frameworks call it that shard a model which was built on the meta device."""
    case, built = CASES[name], made(name)
    with torch.device("meta"):
        layer = case.make().double()
    layer.to_empty(device="cpu")
    spoil(layer)
    for part in layer.modules():
        for reset in ("reset_parameters", "init_non_persistent_buffers"):
            getattr(part, reset, lambda: None)()
    constants = {key: buffer for key, buffer in built.named_buffers()}
    for key, buffer in layer.named_buffers():
        if key not in built.state_dict():
            assert torch.equal(buffer, constants[key]), key


@every_layer
@both_modes
def test_hooks_observe_every_submodule_and_change_nothing(name: str, training: bool) -> None:
    case = CASES[name]
    inputs = case.inputs(3)
    for mask in case.masks(3):
        plain, hooked = made(name).train(training), made(name).train(training)
        called: set[str] = set()
        parts = {
            key: part
            for key, part in hooked.named_modules()
            if not isinstance(part, nn.ModuleList) and not key.endswith(".processes")
        }
        for key, part in parts.items():
            part.register_forward_hook(lambda *_, key=key, called=called: called.add(key))
        (outs, grads), (expected_parts, expected_grads) = (
            run(case, layer, inputs, mask) for layer in (hooked, plain)
        )
        assert called == set(parts)
        assert_alike(outs, expected_parts)
        assert_same_gradients(grads, expected_grads)
        for key, buffer in plain.named_buffers():
            assert_close(hooked.get_buffer(key), buffer)


class Adapter(nn.Module):
    """A map with a second one beside it."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base = base
        self.beside = copy.deepcopy(base)
        self.beside.bias = None

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.beside(x)


@every_layer
@both_modes
def test_adapters_beside_maps_give_what_the_sum_of_weights_gives(name: str, training: bool) -> None:
    case = CASES[name]
    inputs = case.inputs(3)
    for mask in case.masks(3):
        merged, adapted = made(name).train(training), made(name).train(training)
        for key, part in maps_of(adapted).items():
            replace(adapted, key, Adapter(part))
            nn.init.normal_(adapted.get_submodule(f"{key}.beside").weight, std=0.1)
            beside = adapted.get_parameter(f"{key}.beside.weight")
            with torch.no_grad():
                merged.get_parameter(f"{key}.weight").add_(beside)
        (outs, grads), (expected_parts, expected_grads) = (
            run(case, layer, inputs, mask) for layer in (adapted, merged)
        )
        assert_alike(outs, expected_parts)
        for key in maps_of(merged):
            for part in ("base", "beside"):
                got, expected = grads[f"{key}.{part}.weight"], expected_grads[f"{key}.weight"]
                assert got is not None and expected is not None
                assert_close(got, expected, 1e-8, 1e-8)


SURGERY: dict[str, Callable[[Any], Any]] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "old_weight_norm": nn.utils.weight_norm,
    "old_spectral_norm": nn.utils.spectral_norm,
    "prune": lambda part: prune.l1_unstructured(part, "weight", 0.5),
}


@every_layer
@pytest.mark.parametrize("how", SURGERY)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weights_may_be_computed_from_other_parameters(name: str, how: str) -> None:
    """The layer follows them when they are trained."""
    case, plain, layer = CASES[name], made(name).eval(), made(name)
    for part in maps_of(layer).values():
        SURGERY[how](part)
    inputs = case.inputs(3)
    for _ in range(2):
        for key, grad in run(case, layer, inputs, None)[1].items():
            if grad is not None:
                layer.get_parameter(key).data.sub_(0.1 * grad)
    layer.eval()
    outs = case(layer, inputs)
    state = plain.state_dict()
    with torch.no_grad():
        for key in state:
            parent, _, tensor = key.rpartition(".")
            state[key].copy_(getattr(layer.get_submodule(parent), tensor))
    assert_alike(outs, case(plain, inputs))


@every_layer
def test_tensors_may_stand_for_parameters(name: str) -> None:
    case, layer = CASES[name], made(name).eval()
    other = {key: tensor.clone() for key, tensor in layer.state_dict().items()}
    for key, _ in layer.named_parameters():
        other[key] = other[key] * 1.5
    inputs = case.inputs(2)
    outs = case.call(
        lambda *given, **options: functional_call(layer, other, given, options), *inputs
    )
    layer.load_state_dict(other)
    expected_parts = case(layer, inputs)
    parts = [part for part in torch.utils._pytree.tree_leaves(outs) if part is not None]
    assert_alike(parts, expected_parts)


@every_layer
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_linear_maps_may_be_quantized(name: str) -> None:
    case, layer = CASES[name], made(name).float().eval()
    quantized = torch.ao.quantization.quantize_dynamic(layer)
    assert not any(type(part) is nn.Linear for part in quantized.modules())
    inputs = [tensor.float() for tensor in case.inputs(2)]
    with torch.no_grad():
        outs, expected_parts = case(quantized, inputs), case(layer, inputs)
    for got, expected in zip(outs, expected_parts, strict=True):
        assert (got - expected).norm() <= 0.1 * expected.norm() + 1e-6


@every_layer
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_a_layer_may_be_computed_again_for_its_gradients(name: str, use_reentrant: bool) -> None:
    case = CASES[name]
    for mask in case.masks(3):
        plain, layer = made(name).train(), made(name).train()
        inputs = [tensor.requires_grad_() for tensor in case.inputs(3)]

        def again(*given: Tensor, layer: nn.Module = layer, mask: Any = mask) -> tuple[Tensor, ...]:
            return tuple(case(layer, given, mask))

        results = []
        outs = checkpoint(again, *inputs, use_reentrant=use_reentrant)
        for module, parts in ((layer, outs), (plain, case(plain, inputs, mask))):
            smooth = [(out * out.detach().cos()).sum() for out in parts if out.requires_grad]
            for leaf in (*inputs, *module.parameters()):
                leaf.grad = None
            if smooth:
                sum(smooth).backward()
            leaves = {f"input {i}": leaf.grad for i, leaf in enumerate(inputs)}
            results.append(leaves | {key: p.grad for key, p in module.named_parameters()})
        assert_same_gradients(*results)


@every_layer
def test_copies_are_the_layer_and_share_nothing(name: str) -> None:
    case, layer = CASES[name], made(name).eval()
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    copies = {
        "deepcopy": copy.deepcopy(layer),
        "pickle": pickle.loads(pickle.dumps(layer)),
        "save": torch.load(file, weights_only=False),
    }
    inputs = case.inputs(2)
    expected_parts = case(layer, inputs)
    for tensor in layer.state_dict().values():
        tensor.zero_()
    for copied in copies.values():
        assert_alike(case(copied, inputs), expected_parts, 0)


@every_layer
def test_a_state_dict_fits_exactly(name: str) -> None:
    layer = made(name)
    state = layer.state_dict()
    layer.load_state_dict({**state})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        layer.load_state_dict({**state, "other": torch.zeros(1)})
    for missing in state:
        if not missing.endswith("num_batches_tracked"):
            some = {key: tensor for key, tensor in state.items() if key != missing}
            with pytest.raises(RuntimeError, match="Missing key"):
                layer.load_state_dict(some)


@every_layer
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_layer_in_another_precision_gives_nearly_the_same(name: str, dtype: torch.dtype) -> None:
    case, layer = CASES[name], made(name).eval()
    inputs = case.inputs(2)
    expected_parts = case(layer, inputs)
    outs = case(layer.to(dtype), [tensor.to(dtype) for tensor in inputs])
    for got, expected in zip(outs, expected_parts, strict=True):
        error = (got.double() - expected).abs() / (1 + expected.abs())
        # A node may choose another neighbor.
        assert (error <= 30 * torch.finfo(dtype).eps).double().mean() > 0.9


@every_layer
def test_parts_may_be_frozen(name: str) -> None:
    """The others learn what they learn without."""
    case = CASES[name]
    inputs = case.inputs(3)
    free = made(name)
    expected_parts = run(case, free, inputs, None)[1]
    for part, _ in free.named_children():
        layer = made(name)
        layer.get_submodule(part).requires_grad_(False)
        grads = run(case, layer, inputs, None)[1]
        assert_same_gradients(
            grads,
            {
                key: expected
                for key, expected in expected_parts.items()
                if not key.startswith(f"{part}.")
            },
        )


@every_layer
@both_modes
def test_a_converted_layer_in_one_process_is_the_layer(name: str, training: bool) -> None:
    case = CASES[name]
    inputs = case.inputs(3)
    for mask in case.masks(3):
        plain = made(name).train(training)
        layer = nn.SyncBatchNorm.convert_sync_batchnorm(made(name).train(training))
        assert layer.state_dict().keys() == plain.state_dict().keys()
        (outs, grads), (expected_parts, expected_grads) = (
            run(case, each, inputs, mask) for each in (layer, plain)
        )
        assert_alike(outs, expected_parts)
        assert_same_gradients(grads, expected_grads)
        for key, buffer in plain.named_buffers():
            assert_close(layer.get_buffer(key), buffer)
