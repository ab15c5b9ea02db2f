"""Measure how many synthetic faces one core renders per second of processor time.

OMP_NUM_THREADS=1 python benchmarks/synthetic_faces_throughput.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from aurel.data.synthetic import SyntheticFaces
from aurel.data.synthetic.faces import render
from aurel.data.synthetic.label_model import label_world
from aurel.data.synthetic.plan import Plan, join_plans, plan_images


def images_per_second(task: Callable[[], object], count: int, repeats: int) -> float:
    """Return the best rate of several runs, in images per second of processor time."""
    task()
    best = 0.0
    for _ in range(repeats):
        start = time.process_time()
        task()
        best = max(best, count / (time.process_time() - start))
    return best


def main() -> None:
    """Print a table: rendering only, and data sets with labels and hidden AUs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 112, 128, 224])
    parser.add_argument("--images", type=int, default=320, help="at 96 px; fewer when larger")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    print("size  faces alone  faces, labels, occluders, hidden units")
    for size in arguments.sizes:
        people = max(1, round(arguments.images * (96 / size) ** 2 / 20))
        world = label_world("BP4D")
        plan = join_plans([plan_images(world, 0, s, 20, 0.9, 1.0, 0.2) for s in range(people)])

        def alone(size: int = size, plan: Plan = plan) -> None:
            render(plan.who, plan.actions, plan.capture, size=size)

        def whole(size: int = size, people: int = people) -> None:
            SyntheticFaces(subjects=range(people), per_subject=20, size=size)

        rates = [images_per_second(f, people * 20, arguments.repeats) for f in (alone, whole)]
        print(f"{size:4d}  {rates[0]:11.0f}  {rates[1]:11.0f}", flush=True)


if __name__ == "__main__":
    main()
