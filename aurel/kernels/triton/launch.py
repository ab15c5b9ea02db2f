"""The launch of every kernel: from a cache of compiled kernels, or compiled and not run at all.

`kernel[grid](...)` of Triton binds, specializes and looks up at every call, in Python, which takes
longer than a small kernel runs. A launch skips that if there was one with the same specialization:
the compiled kernel is then taken from a dictionary and called directly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

Compiled = tuple[str, dict[str, Any], Any]
Direct = tuple[Any, Any, tuple[Any, ...]]  # kernel, compiled kernel, its last arguments

# Triton decides at its own import, by TRITON_INTERPRET, whether kernels run in its interpreter.
INTERPRETED = not isinstance(tl.sum, triton.JITFunction)

# Versions in which `CompiledKernel.run` takes the arguments that `launch` passes.
OLDEST, NEWEST = (3, 4), (3, 9)
VERSION = tuple(int(part) for part in triton.__version__.split(".")[:2])

# On AMD's GPUs Triton also specializes for the size of the storage behind a pointer.
DIRECT = not INTERPRETED and torch.version.hip is None and OLDEST <= VERSION <= NEWEST

PLANS = 1_024  # shapes for which a kernel module keeps its launches

_record: list[Compiled] | None = None
_compiled: set[int] | None = None  # kernels that `compile_only(once=True)` has compiled
_direct: dict[tuple[Any, ...], Direct] = {}


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **meta: Any) -> Direct | None:
    """Run `kernel` over `grid`, on the device of its first argument, a tensor.

    Inside `compile_only`, compile it for the active target instead.

    Returns:
        What ran, if launches of the same specialization may call it directly.
    """
    if 0 in grid:
        return None
    if _record is not None:
        if _compiled is not None:
            if id(kernel) in _compiled:
                return None
            _compiled.add(id(kernel))
        meta = _available(meta)
        _record.append((kernel.__name__, meta, kernel.warmup(*args, grid=grid, **meta)))
        return None
    index = args[0].get_device()
    if index >= 0 and index != torch.cuda.current_device():
        with torch.cuda.device(index):
            return launch(kernel, grid, *args, **meta)
    if not DIRECT or _hooked():
        kernel[grid](*args, **_available(meta))
        return None
    driver = triton.runtime.driver.active
    device = driver.get_current_device() if index < 0 else index
    key = (id(kernel), device, *specialization(args), *meta, *meta.values())
    found = _direct.get(key)
    if found is None:
        compiled = kernel[grid](*args, **_available(meta))
        constants = trailing_constants(kernel, len(args), meta)
        if compiled is not None and constants is not None:
            _direct[key] = kernel, compiled, constants
        return _direct.get(key)
    _, compiled, constants = found
    stream = driver.get_current_stream(device)
    function, metadata = compiled.function, compiled.packed_metadata
    head = (*_three(grid), stream, function, metadata, None, None, None)
    compiled.run(*head, *args, *constants)
    return found


class Launch:
    """A launch whose sizes and options are fixed: of two calls, only the tensors differ.

    That saves most of the time of `launch`. A kernel module makes one for each shape, and keeps it.
    """

    def __init__(
        self, kernel: Any, grid: tuple[int, ...], sizes: tuple[Any, ...] = (), **meta: Any
    ) -> None:
        """Take the arguments of `launch`; `sizes` are those between tensors and constants."""
        self.kernel, self.grid, self.sizes, self.meta = kernel, grid, sizes, meta
        self.blocks = _three(grid)
        self.direct: dict[tuple[Any, ...], tuple[Any, ...]] = {}

    def __call__(self, *tensors: Tensor) -> None:
        """Run the kernel, on the device of the first tensor; see `launch`."""
        kinds, addresses = [], 0
        for tensor in tensors:
            kinds.append(tensor.dtype)
            addresses |= tensor.data_ptr()
        index = tensors[0].get_device()
        if not DIRECT or addresses & 15 or _record is not None or _hooked():
            launch(self.kernel, self.grid, *tensors, *self.sizes, **self.meta)
            return
        driver = triton.runtime.driver.active
        device = driver.get_current_device()
        key = (device, index, *kinds)
        found = self.direct.get(key)
        if found is not None:
            run, function, metadata, rest = found
            stream = driver.get_current_stream(device)
            run(*self.blocks, stream, function, metadata, None, None, None, *tensors, *rest)
            return
        ran = launch(self.kernel, self.grid, *tensors, *self.sizes, **self.meta)
        if ran is not None and index in (-1, device):
            _, compiled, constants = ran
            rest = (*self.sizes, *constants)
            self.direct[key] = compiled.run, compiled.function, compiled.packed_metadata, rest


def _three(grid: tuple[int, ...]) -> tuple[int, ...]:
    """Return the grid with three dimensions."""
    return (*grid, 1, 1)[:3]


def _hooked() -> bool:
    """Return whether a profiler has a hook, which `kernel[grid]` calls at every launch."""
    enter, leave = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
    return bool(getattr(enter, "calls", enter) or getattr(leave, "calls", leave))


def specialization(args: Sequence[Any]) -> list[Any]:
    """Return the properties of arguments, constants apart, that a compiled kernel depends on.

    That is at least as fine as Triton's own rule: the dtype of a tensor and whether its address is
    divisible by 16; whether an int is 1, is divisible by 16, and fits 32 bits; else the type.
    """
    key: list[Any] = []
    addresses = 0
    for arg in args:
        kind = type(arg)
        if kind is int:
            key.append(1 if arg == 1 else 0 if arg & 15 else 16)
            if not -(2**31) <= arg < 2**31:
                key.append(arg.bit_length() > 63)
        elif kind is Tensor or isinstance(arg, Tensor):
            key.append(arg.dtype)
            addresses |= arg.data_ptr()
        else:
            key.append(kind)
    if addresses & 15:
        key.append(tuple(arg.data_ptr() % 16 == 0 for arg in args if isinstance(arg, Tensor)))
    return key


def trailing_constants(kernel: Any, count: int, meta: dict[str, Any]) -> tuple[Any, ...] | None:
    """Return the values of a kernel's parameters after the first `count`, in their order.

    None if these are not all constants, or if there are constants among the first: the key of such
    a launch would not distinguish their values.
    """
    if any(p.is_constexpr != (i >= count) for i, p in enumerate(kernel.params)):
        return None
    return tuple(meta.get(p.name, p.default) for p in kernel.params[count:])


def _available(meta: dict[str, Any]) -> dict[str, Any]:
    """Return the options without those that the active target does not have."""
    if "maxnreg" in meta and not INTERPRETED and target() != "cuda":
        return {name: value for name, value in meta.items() if name != "maxnreg"}
    return meta


def empty_for(x: Tensor) -> Tensor:
    """Return memory of the shape, dtype and device of x, contiguous."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def cdiv(x: int, y: int) -> int:
    """Return x / y, rounded up: as `triton.cdiv` does, which takes microseconds on the host."""
    return -(-x // y)


def current_target() -> Any:
    """Return backend ("cuda" or "hip") and architecture that kernels are compiled for."""
    driver = triton.runtime.driver.active
    return _target_of(driver, driver.get_current_device())


@cache
def _target_of(driver: Any, device: int) -> Any:
    return driver.get_current_target()


def target() -> str:
    """Return the backend that kernels are compiled for: "cuda" or "hip"."""
    backend: str = current_target().backend
    return backend


@contextmanager
def compile_only(once: bool = False) -> Iterator[list[Compiled]]:
    """Collect (kernel name, launch options, compiled kernel) of every launch instead of running.

    With `once`, only the first launch of each kernel.
    """
    global _record, _compiled
    previous = _record, _compiled
    _record, _compiled = [], set() if once else None
    try:
        yield _record
    finally:
        _record, _compiled = previous
