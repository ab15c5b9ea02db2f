"""Stand-ins for the driver of a GPU: kernels are compiled, and launches do nothing."""

from __future__ import annotations

from typing import Any

# target: backend, architecture, lanes of a warp, shared memory that a block may have (KiB)
TARGETS: dict[str, tuple[str, int | str, int, int]] = {
    "sm_80": ("cuda", 80, 32, 163),
    "sm_90": ("cuda", 90, 32, 227),
    "sm_100": ("cuda", 100, 32, 227),
    "gfx942": ("hip", "gfx942", 64, 64),
}


class StandInDriver:
    """As much of a driver as Triton needs to compile; each target is a device of its own."""

    def __init__(self, target: str) -> None:
        self.target = target

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget(*TARGETS[self.target][:3])

    def get_current_device(self) -> int:
        return list(TARGETS).index(self.target)

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


class IdleDriver(StandInDriver):
    """A driver whose launches do nothing but count themselves.

    Attributes:
        launches: arguments of the launches so far: grid, stream, function, metadata, hooks, then
            those of the kernel.
    """

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.launches: list[tuple[Any, ...]] = []
        self.utils = IdleUtils(TARGETS[target][3])

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        return lambda *args: self.launches.append(args)


class IdleUtils:
    """The part of a driver that loads compiled kernels."""

    def __init__(self, shared: int) -> None:
        self.shared = shared

    def load_binary(self, *args: Any) -> tuple[int, int, int, int, int]:
        """Return module, function, registers, spills and the threads that a block may have."""
        return 1, 1, 32, 0, 1024

    def unload_module(self, module: int) -> None:
        pass

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": self.shared * 1024, "multiprocessor_count": 132}
