"""Cases of `test_launch.py`: prints each name with "ok" or an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

from aurel.kernels.triton import launch as launching
from aurel.kernels.triton.launch import Launch, compile_only, launch
from aurel.kernels.triton.stand_in import IdleDriver

driver = IdleDriver("sm_90")


@triton.jit
def copy_kernel(in_ptr, out_ptr, N, scale, BLOCK: tl.constexpr, TWICE: tl.constexpr = False):
    o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    b_x = tl.load(in_ptr + o, mask=o < N, other=0.0) * scale
    if TWICE:
        b_x *= 2
    tl.store(out_ptr + o, b_x, mask=o < N)


class Counted:
    """A kernel that counts the launches that go through Triton."""

    def __init__(self) -> None:
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(copy_kernel, name)

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Any]:
        self.calls += 1
        return copy_kernel[grid]


X, OUT = torch.zeros(64), torch.zeros(64)
OPTIONS = {"BLOCK": 32, "num_warps": 1}


def go(kernel: Any, *args: Any, grid: tuple[int, ...] = (2,), **meta: Any) -> tuple[Any, ...]:
    """Launch, and return the arguments that the driver received."""
    driver.launches.clear()
    launch(kernel, grid, *(args or (X, OUT, 40, 0.5)), **{**OPTIONS, **meta})
    (got,) = driver.launches
    return got


def go_fixed(call: Launch, *tensors: torch.Tensor) -> tuple[Any, ...]:
    """Call a launch of fixed sizes, and return the arguments that the driver received."""
    driver.launches.clear()
    call(*tensors)
    (got,) = driver.launches
    return got


def skips_triton() -> None:
    kernel = Counted()
    for _ in range(3):
        go(kernel)
    assert kernel.calls == 1, kernel.calls


def passes_the_same() -> None:
    kernel = Counted()
    for meta in ({}, {"TWICE": True}):
        for grid in ((2,), (2, 3), (2, 3, 4)):
            copy_kernel[grid](X, OUT, 40, 0.5, **OPTIONS, **meta)
            want = driver.launches[-1]
            go(kernel, grid=grid, **meta)
            calls = kernel.calls
            got = go(kernel, grid=grid, **meta)
            assert kernel.calls == calls
            # Grid, stream, function and metadata; then, behind three hooks, the arguments.
            assert got[:6] == want[:6] and got[9:] == want[9:], (got, want)


def any_grid() -> None:
    kernel = Counted()
    assert go(kernel, grid=(2,))[:3] == (2, 1, 1)
    assert go(kernel, grid=(5, 6))[:3] == (5, 6, 1)
    assert go(kernel, grid=(7, 8, 9))[:3] == (7, 8, 9)
    assert kernel.calls == 1


def empty_grid() -> None:
    kernel = Counted()
    driver.launches.clear()
    launch(kernel, (0,), X, OUT, 40, 0.5, **OPTIONS)
    assert not driver.launches and not kernel.calls


def specializes() -> None:
    """Calls for which Triton compiles another kernel must not share an entry."""
    kernel = Counted()
    unaligned, half, wide = torch.zeros(65)[1:], X.half(), X.double()
    calls = [
        (X, OUT, 40, 0.5),
        (X, OUT, 48, 0.5),
        (X, OUT, 1, 0.5),
        (X, OUT, 2**40, 0.5),
        (X, OUT, 2**40 + 1, 0.5),
        (X, OUT, 40, 1),
        (X, OUT, 40, True),
        (unaligned, OUT, 40, 0.5),
        (X, unaligned, 40, 0.5),
        (unaligned, unaligned, 40, 0.5),
        (half, OUT, 40, 0.5),
        (wide, OUT, 40, 0.5),
    ]
    for args in calls:
        go(kernel, *args)
    assert kernel.calls == len(calls)
    for args in calls:
        copy_kernel[(2,)](*args, **OPTIONS)
        want = driver.launches[-1]
        # Launches of the same compiled kernel have the same packed metadata object.
        assert go(kernel, *args)[5] is want[5], args
    go(kernel, X, OUT, 41, 0.25)
    assert kernel.calls == len(calls), "values that are not specialized for share a kernel"


def distinguishes_constants() -> None:
    kernel = Counted()
    metas: list[dict[str, Any]] = [{}, {"BLOCK": 64}, {"num_warps": 2}, {"TWICE": True}]
    metas.append({"num_stages": 1})
    for meta in metas:
        go(kernel, **meta)
    assert kernel.calls == len(metas)
    assert [go(kernel, **meta)[-2:] for meta in metas[:4]] == [
        (32, False),
        (64, False),
        (32, False),
        (32, True),
    ]
    assert kernel.calls == len(metas)


def distinguishes_devices() -> None:
    kernel = Counted()
    other = IdleDriver("sm_80")
    go(kernel)
    triton.runtime.driver.set_active(other)
    try:
        launch(kernel, (2,), X, OUT, 40, 0.5, **OPTIONS)
        launch(kernel, (2,), X, OUT, 40, 0.5, **OPTIONS)
    finally:
        triton.runtime.driver.set_active(driver)
    assert kernel.calls == 2 and len(other.launches) == 2


def constants_by_position() -> None:
    kernel = Counted()
    for block in (32, 64, 32, 64):
        driver.launches.clear()
        launch(kernel, (2,), X, OUT, 40, 0.5, block, num_warps=1)
        assert driver.launches[0][13] == block
    assert kernel.calls == 4


def calls_profilers() -> None:
    kernel = Counted()
    go(kernel)
    go(kernel)
    seen = []
    runtime = triton.knobs.runtime
    before = runtime.launch_enter_hook
    hook = seen.append
    if hasattr(before, "add"):
        before.add(hook)
    else:
        runtime.launch_enter_hook = hook
    try:
        got = go(kernel)
    finally:
        if hasattr(before, "add"):
            before.remove(hook)
        else:
            runtime.launch_enter_hook = before
    assert kernel.calls == 2 and got[7] is not None
    go(kernel)
    assert kernel.calls == 2


def compiles_only() -> None:
    kernel = Counted()
    go(kernel)
    driver.launches.clear()
    with compile_only() as record:
        launch(copy_kernel, (2,), X, OUT, 40, 0.5, **OPTIONS)
        launch(copy_kernel, (2,), X, OUT, 40, 0.5, **OPTIONS, maxnreg=64)
    assert not driver.launches
    assert [name for name, _, _ in record] == ["copy_kernel"] * 2
    assert record[0][1] == OPTIONS and record[1][1]["maxnreg"] == 64
    assert all("cubin" in compiled.asm for _, _, compiled in record)
    triton.runtime.driver.set_active(IdleDriver("gfx942"))
    try:
        assert launching._available({"BLOCK": 32, "maxnreg": 64}) == {"BLOCK": 32}
    finally:
        triton.runtime.driver.set_active(driver)


def fixed_sizes() -> None:
    """A `Launch` passes what Triton passes, and skips it from the second call on."""
    half, unaligned = X.half(), torch.zeros(65)[1:]
    for grid in ((2,), (2, 3), (2, 3, 4)):
        kernel = Counted()
        call = Launch(kernel, grid, (40, 0.5), **OPTIONS)
        for x in (X, half, unaligned, X, half):
            copy_kernel[grid](x, OUT, 40, 0.5, **OPTIONS)
            want = driver.launches[-1]
            for _ in range(2):
                got = go_fixed(call, x, OUT)
                assert got[:6] == want[:6] and got[9:] == want[9:], (got, want)
        assert kernel.calls == 3, kernel.calls
    driver.launches.clear()
    Launch(copy_kernel, (2, 0), (40, 0.5), **OPTIONS)(X, OUT)
    assert not driver.launches


def fixed_sizes_elsewhere() -> None:
    """A `Launch` has kernels of its own for each device, and compiles inside `compile_only`."""
    call = Launch(copy_kernel, (2,), (40, 0.5), **OPTIONS)
    here = go_fixed(call, X, OUT)
    other = IdleDriver("sm_100")
    triton.runtime.driver.set_active(other)
    try:
        call(X, OUT)
        call(X, OUT)
    finally:
        triton.runtime.driver.set_active(driver)
    assert [each[5] is here[5] for each in other.launches] == [False, False]
    driver.launches.clear()
    with compile_only() as record:
        call(X, OUT)
    assert not driver.launches and [name for name, _, _ in record] == ["copy_kernel"]
    assert go_fixed(call, X, OUT)[5] is here[5]


CASES = {
    "a second launch skips Triton": skips_triton,
    "a direct launch passes what Triton passes": passes_the_same,
    "the grid may change": any_grid,
    "an empty grid launches nothing": empty_grid,
    "a launch of fixed sizes passes what Triton passes": fixed_sizes,
    "a launch of fixed sizes knows the device, and compile_only": fixed_sizes_elsewhere,
    "each specialization has a kernel of its own": specializes,
    "launches with different constants and options differ": distinguishes_constants,
    "each device has kernels of its own": distinguishes_devices,
    "constants given by position are not cached": constants_by_position,
    "a profiler is called": calls_profilers,
    "compile_only runs nothing, whatever is in the cache": compiles_only,
}


def main() -> None:
    triton.runtime.driver.set_active(driver)
    assert launching.DIRECT
    for name, case in CASES.items():
        try:
            case()
            print(f"{name}: ok")
        except AssertionError as error:
            line = error.__traceback__
            while line is not None and line.tb_next is not None:
                line = line.tb_next
            print(f"{name}: line {line and line.tb_lineno}: {error!r}".replace("\n", " "))


if __name__ == "__main__":
    main()
