"""CUDA graphs of layers and models, for small batches whose cost is that of launches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree


def capture(module: nn.Module, *example_inputs: Any, warmup: int = 3) -> Captured:
    """Capture the forward pass of a module, and its backward pass if gradients are required.

    To launch a step of a layer on a few small graphs from Python takes more time than to run it on
    a GPU. A captured step is one launch::

        step = aurel.cuda_graphs.capture(model.eval(), images)
        with torch.no_grad():
            probs = step(images).probs.clone()

    Outside `torch.no_grad`, if an input or a parameter requires a gradient, the backward pass is
    captured, too, and the result is used in training like the module itself. Then

    - call `backward` once for each call, before the next call;
    - to accumulate gradients over several calls, keep them: ``zero_grad(set_to_none=False)``;
    - under autocast, capture and call with ``torch.autocast("cuda", cache_enabled=False)``.

    Random numbers, as of dropout, differ from call to call as usual. The capture
    itself does not change statistics of batch norms.

    Args:
        module: layer or model on a CUDA device, whose mode, training or evaluation, stays the same.
        example_inputs: positional arguments of a call: tensors on that device, None or other
            constants, or nests of these. Values of the tensors are not used.
        warmup: calls before the capture, which compile kernels and choose algorithms.

    Returns:
        A function of the same arguments that replays the capture. Its outputs have the structure of
        those of the module, such as `AUOutput`; the next call overwrites their memory.

    Raises:
        ValueError: there is no CUDA device; an input or a parameter is not on one; `warmup` is less
            than 1; autocast caches casts. The result raises it for an argument that does not
            match the example in shape, dtype, device or value, and after a change of mode.
    """
    if warmup < 1:
        raise ValueError(f"warmup must be at least 1, got {warmup}")
    if not torch.cuda.is_available():
        raise ValueError("a CUDA device must be available for a CUDA graph, got none")
    if torch.is_autocast_enabled("cuda") and torch.is_autocast_cache_enabled():
        raise ValueError("autocast must have cache_enabled=False for a CUDA graph, got True")
    signature = Signature(example_inputs)
    inputs = signature.tensors(example_inputs)
    named = {f"input {i}": tensor for i, tensor in enumerate(inputs)}
    for name, tensor in (named | dict(module.named_parameters())).items():
        if tensor.device.type != "cuda":
            raise ValueError(f"{name} must be on a CUDA device, got {tensor.device}")
    # Separate memory, into which every call copies its arguments.
    static = tuple(x.detach().clone().requires_grad_(x.requires_grad) for x in inputs)
    flat = FlatModule(module, signature)
    trains = torch.is_grad_enabled() and any(x.requires_grad for x in (*static, *flat.parameters()))
    with _restored_buffers(module):
        run = _training(flat, static, warmup) if trains else _inference(flat, static, warmup)
    return Captured(module, signature, flat, run, trains)


class Captured:
    """A captured module, the result of `capture`."""

    def __init__(
        self,
        module: nn.Module,
        signature: Signature,
        flat: FlatModule,
        run: Callable[..., tuple[Tensor, ...]],
        trains: bool,
    ) -> None:
        self.module = module
        self.trains = trains
        self._signature, self._flat, self._run = signature, flat, run
        self._training = module.training

    def __call__(self, *args: Any) -> Any:
        """Replay the capture on arguments like those of the example."""
        if self.module.training != self._training:
            mode = {True: "training", False: "evaluation"}
            raise ValueError(
                f"module must be in {mode[self._training]} mode, as when it was captured, "
                f"got {mode[self.module.training]} mode"
            )
        tensors = self._signature.tensors(args)
        if torch.is_grad_enabled() and not self.trains and any(x.requires_grad for x in tensors):
            raise ValueError("inputs must not require a gradient, as no backward pass was captured")
        return self._flat.restore(self._run(*tensors))


@dataclass(frozen=True)
class Like:
    """The properties that a tensor must keep."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> Like:
        return cls(tuple(tensor.shape), tensor.dtype, tensor.device)


class Signature:
    """The structure of positional arguments, and the properties that a later call must match."""

    def __init__(self, args: tuple[Any, ...]) -> None:
        leaves, self._spec = pytree.tree_flatten(args)
        self._leaves = [Like.of(x) if isinstance(x, Tensor) else x for x in leaves]

    def tensors(self, args: tuple[Any, ...]) -> tuple[Tensor, ...]:
        """Return the tensors in `args`; ValueError unless these are like the first ones."""
        leaves, spec = pytree.tree_flatten(args)
        if spec != self._spec:
            raise ValueError(f"arguments must have the structure {self._spec}, got {spec}")
        for i, (leaf, like) in enumerate(zip(leaves, self._leaves, strict=True)):
            got = Like.of(leaf) if isinstance(leaf, Tensor) else leaf
            if type(got) is not type(like) or got != like:
                raise ValueError(f"argument {i} must be {like}, as captured, got {got}")
        return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))

    def arguments(self, tensors: tuple[Tensor, ...]) -> tuple[Any, ...]:
        """Return arguments with `tensors` in place of the first ones."""
        remaining = iter(tensors)
        leaves = [next(remaining) if isinstance(like, Like) else like for like in self._leaves]
        args: tuple[Any, ...] = pytree.tree_unflatten(leaves, self._spec)
        return args


class FlatModule(nn.Module):
    """A module as a function of a tuple of tensors, to a tuple of tensors."""

    def __init__(self, module: nn.Module, signature: Signature) -> None:
        super().__init__()
        self.module = module
        self.training = module.training  # not `train`, which changes the submodules
        self._signature = signature
        self._constants: list[Any] = []
        self._spec: pytree.TreeSpec | None = None

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        out = self.module(*self._signature.arguments(tensors))
        leaves, self._spec = pytree.tree_flatten(out)
        self._constants = [None if isinstance(leaf, Tensor) else (leaf,) for leaf in leaves]
        return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))

    def restore(self, tensors: tuple[Tensor, ...]) -> Any:
        """Return the output of the last forward pass with `tensors` in place of its own."""
        assert self._spec is not None
        remaining = iter(tensors)
        leaves = [next(remaining) if each is None else each[0] for each in self._constants]
        return pytree.tree_unflatten(leaves, self._spec)


def _training(
    flat: FlatModule, static: tuple[Tensor, ...], warmup: int
) -> Callable[..., tuple[Tensor, ...]]:
    graphed = torch.cuda.make_graphed_callables(
        flat, static, num_warmup_iters=warmup, allow_unused_input=True
    )
    return cast(Callable[..., tuple[Tensor, ...]], graphed)


def _inference(
    flat: FlatModule, static: tuple[Tensor, ...], warmup: int
) -> Callable[..., tuple[Tensor, ...]]:
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(warmup):
                flat(*static)
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(graph):
            outputs = flat(*static)

    def replay(*tensors: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            for target, source in zip(static, tensors, strict=True):
                target.copy_(source)
            graph.replay()
        return tuple(out.detach() for out in outputs)

    return replay


@contextmanager
def _restored_buffers(module: nn.Module) -> Iterator[None]:
    """Restore the values of all buffers afterwards: warm-up updates statistics of batch norms."""
    buffers = list(module.buffers())
    before = [buffer.detach().clone() for buffer in buffers]
    yield
    with torch.no_grad():
        for buffer, values in zip(buffers, before, strict=True):
            buffer.copy_(values)
