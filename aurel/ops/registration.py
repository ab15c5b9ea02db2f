"""One declaration makes an operator: schema, shapes, kernels, gradient, export, FLOP count.

An operator is called in two ways. A program that is captured (`torch.compile`, `torch.export`, any
dispatch mode, such as a FLOP counter) calls the `torch.library` operator ``aurel::<name>``. Eager
calls skip it: an `autograd.Function`, or nothing at all, around the same implementation takes a
fraction of the host time.
"""

from __future__ import annotations

import inspect
from collections import namedtuple
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from aurel.ops.backend import is_transformed
from aurel.ops.precision import is_autocast, without_autocast

PACKAGES = {"triton": "aurel.kernels.triton", "numba": "aurel.kernels.cpu"}

Rule = Callable[[Any], Any]

OPERATORS: dict[str, Operator] = {}
"""All declared operators, by name."""


@dataclass(frozen=True)
class Gradient:
    """The derivative of an operator.

    Attributes:
        save: saves on the context what `backward` reads; takes context, call and outputs.
        backward: gradients of all arguments, from the context and the gradients of the outputs,
            of which those of unused outputs are None.
        backward_in_torch: the same in plain torch, for gradients of gradients.
    """

    save: Callable[[Any, Any, Any], None]
    backward: Callable[..., tuple[Any, ...]]
    backward_in_torch: Callable[..., tuple[Any, ...]]


class Operator:
    """A declared operator, and its eager path; see `operator`."""

    def __init__(
        self,
        function: Callable[..., Any],
        shapes: Rule,
        definition: Rule | None,
        flops: Rule | None,
        kernels: Sequence[str],
        gradient: Gradient | None,
        check: Rule | None,
    ) -> None:
        self.name = function.__name__.removeprefix("_")
        kinds = {p.name: p.annotation for p in inspect.signature(function).parameters.values()}
        self.arguments = _named_tuple(kinds)
        self.tensors = [place for place, kind in enumerate(kinds.values()) if "Tensor" in kind]
        self.first = list(kinds.values()).index("Tensor")  # its device is that of the call
        self.function, self.kernels, self.gradient = function, tuple(kernels), gradient
        self.definition = None if definition is None else self.bind(definition)
        self.check = None if check is None else self.bind(check)
        self.flops = None if flops is None else self.bind_shapes(flops)
        schema = torch.library.infer_schema(function, mutates_args=())
        self.custom_op = torch.library.custom_op(
            f"aurel::{self.name}", self.run, mutates_args=(), schema=schema
        )
        self.custom_op.register_fake(self.bind(shapes))
        if gradient is not None:
            self.custom_op.register_autograd(self.backward, setup_context=self.save)
        self.op = getattr(torch.ops.aurel, self.name).default

    def bind(self, rule: Rule) -> Callable[..., Any]:
        """Return `rule` as a function of the operator's arguments in their order."""
        return lambda *args: rule(self.arguments(*args))

    def bind_shapes(self, rule: Rule) -> Callable[..., int]:
        """Return `rule` as torch's FLOP counter calls it: with shapes in place of tensors."""
        bound = self.bind(rule)
        return lambda *args, out_shape=None, **_: bound(*args)

    def __call__(self, *args: Any) -> Any:
        """Return the outputs; the last argument names the backend."""
        if args[-1] == "definition" and self.definition is not None:
            return self.define(*args)
        tensors = [args[place] for place in self.tensors]
        if torch.compiler.is_compiling() or _is_captured(tensors):
            return self.op(*args)
        if self.gradient is not None and torch.is_grad_enabled():
            for tensor in tensors:
                if tensor is not None and tensor.requires_grad:
                    return self.eager(args, *tensors)
        return self.run(*args)

    def define(self, *args: Any) -> Any:
        """Return the outputs by the definition, which autograd and transforms differentiate."""
        assert self.definition is not None
        tensors = [args[place] for place in self.tensors]
        traced = torch.compiler.is_compiling() or _is_captured(tensors) or is_transformed()
        if self.check is not None and not traced:
            self.check(*args)
        with without_autocast(args[self.first]):
            return self.definition(*args)

    def run(self, *args: Any) -> Any:
        """Return the outputs by the backend that the last argument names."""
        if self.check is not None:
            self.check(*args)
        function = self.function
        if args[-1] in self.kernels:
            function, args = kernel(args[-1], self.name), args[:-1]
        if not is_autocast(args[self.first]):
            return function(*args)
        with without_autocast(args[self.first]):
            return function(*args)

    def save(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Save on `ctx` what the gradient needs."""
        assert self.gradient is not None
        ctx.set_materialize_grads(False)
        ctx.impl = inputs[-1]
        self.gradient.save(ctx, self.arguments(*inputs), output)

    def backward(self, ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        """Return the gradients of all arguments."""
        assert self.gradient is not None
        for grad in grads:
            if grad is not None:
                break
        else:
            return (None,) * len(self.arguments._fields)
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return self.gradient.backward_in_torch(ctx, *grads)
        return self.gradient.backward(ctx, *grads)

    @cached_property
    def eager(self) -> Callable[..., Any]:
        """The autograd function of eager calls that need a gradient.

        It takes all arguments as one, then the tensors among them: torch takes time for each.
        ``Function.apply`` in Python is for transforms, inside of which no call gets here.
        """
        operator = self

        class Eager(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, args: tuple[Any, ...], *_: Tensor | None) -> Any:
                output = operator.run(*args)
                operator.save(ctx, args, output)
                return output

            @staticmethod
            def backward(ctx: Any, *grads: Any) -> Any:
                found = operator.backward(ctx, *grads)
                return None, *[found[place] for place in operator.tensors]

        Eager.__name__ = Eager.__qualname__ = self.name
        apply: Callable[..., Any] = super(torch.autograd.Function, Eager).apply
        return apply


def operator(
    *,
    shapes: Rule,
    definition: Rule | None,
    flops: Rule | None,
    kernels: Sequence[str] = ("triton", "numba"),
    gradient: Gradient | None,
    check: Rule | None = None,
) -> Callable[[Callable[..., Any]], Operator]:
    """Declare the operator ``aurel::<function>``, whose path in plain torch the function is.

    The rules take the arguments of a call as a tuple with their names.

    Args:
        shapes: empty outputs of a call.
        definition: outputs of a call in plain torch, for backend "definition" and for export.
            Outputs that only a gradient needs are empty. None for the operator of a gradient.
        flops: number of operations in matrix products; the call holds shapes in place of tensors.
            None if there are none.
        kernels: backends with kernels. Function ``forward`` (``backward`` for an operator of that
            ending) of the module with the operator's name takes all arguments but the last.
        gradient: derivative of the operator, or None.
        check: raises ValueError for values, not shapes, that no backend serves.
    """

    def register(function: Callable[..., Any]) -> Operator:
        declared = Operator(function, shapes, definition, flops, kernels, gradient, check)
        OPERATORS[declared.name] = declared
        return declared

    return register


@cache
def kernel(backend: str, name: str) -> Callable[..., Any]:
    """Return the function of a kernel package that serves operator `name`."""
    base = name.removesuffix("_backward")
    module = import_module(f"{PACKAGES[backend]}.{base}")
    function = module.forward if base == name else module.backward
    assert callable(function)
    return function


def gradients_of_definition(
    definition: Callable[..., Any],
    inputs: Sequence[Tensor | None],
    grads: Sequence[Tensor | None],
) -> tuple[Tensor | None, ...]:
    """Return the gradients of `inputs` through `definition`, themselves differentiable.

    Args:
        definition: function of the inputs; returns a tuple of tensors.
        inputs: saved inputs of an operator.
        grads: gradients of the outputs; None where an output was not used.
    """
    # Views, so that an input that was computed from another one gets a gradient of its own.
    copies = [
        each.view_as(each) if each is not None and each.requires_grad else each for each in inputs
    ]
    outputs = definition(*copies)
    used = [(out, grad) for out, grad in zip(outputs, grads, strict=True) if grad is not None]
    leaves = [each for each in copies if each is not None and each.requires_grad]
    gradients = iter(
        torch.autograd.grad(
            [out for out, _ in used],
            leaves,
            [grad for _, grad in used],
            create_graph=True,
            allow_unused=True,
        )
    )
    return tuple(
        next(gradients) if each is not None and each.requires_grad else None for each in copies
    )


def _named_tuple(names: Iterable[str]) -> Any:
    """Return the class of a call's arguments."""
    return namedtuple("Call", names)  # noqa: PYI024 - they have no types of their own


def _is_captured(tensors: Sequence[Tensor | None]) -> bool:
    """Return whether a dispatch mode or a tensor subclass must intercept the call."""
    if torch._C._len_torch_dispatch_stack() > 0:
        return True
    for tensor in tensors:
        if tensor is not None and type(tensor) is not Tensor and type(tensor) is not Parameter:
            return True
    return False
