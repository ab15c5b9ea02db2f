"""Run units of work on a Ray cluster, whose machines see the same files."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from typing import Any

from aurel.vision.manifest import Outcome
from aurel.vision.workers import Make, Run, T, lost

LOCAL = "local"
RETRIES = 1
"""A unit whose process or machine is lost is tried once more elsewhere."""

_made: dict[bytes, Run[Any]] = {}


def run_on_ray(
    make: Make[T], units: Iterable[tuple[T, ...]], address: str, gpus: float = 0
) -> Iterator[list[Outcome]]:
    """Yield the outcomes of the units in the order in which they end.

    A process keeps the function that `make` returns for its next units. At most two units a core
    are waiting or in progress.

    Args:
        make: see `aurel.vision.workers.Make`.
        units: units of work; their paths must be valid on every machine.
        address: of the cluster, such as ``ray://head:10001`` or ``auto``; "local" starts one here.
        gpus: share of a GPU that a process takes.

    Raises:
        ImportError: Ray is missing.
        ConnectionError: there is no cluster at this address.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError("--ray needs Ray: pip install 'aurel-au[ray]'") from error
    started = not ray.is_initialized()
    if started:
        ray.init(None if address == LOCAL else address, log_to_driver=False)
    finish: Any = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_finish)
    made = pickle.dumps(make)
    limit = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    pending = iter(units)
    again: list[tuple[T, ...]] = []
    busy: dict[Any, tuple[T, ...]] = {}
    try:
        while True:
            while len(busy) < limit and (unit := again.pop() if again else next(pending, None)):
                busy[finish.remote(made, unit)] = unit
            if not busy:
                return
            for reference in ray.wait(list(busy))[0]:
                unit = busy.pop(reference)
                try:
                    yield ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.as_instanceof_cause() from error
                except (ray.exceptions.RayError, OSError):
                    if len(unit) > 1:
                        again += [(task,) for task in reversed(unit)]
                    else:
                        yield [lost(unit[0])]
    finally:
        if started:
            ray.shutdown()


def _finish(made: bytes, unit: tuple[Any, ...]) -> list[Outcome]:
    if made not in _made:
        _made.clear()
        _made[made] = pickle.loads(made)()
    return _made[made](unit)
