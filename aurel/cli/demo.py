"""`aurel demo`: AUs that are covered, with and without relations, on the synthetic faces."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurel.cli.errors import Interrupted

if TYPE_CHECKING:
    from aurel.training.data_module import Splits

_ABOUT = """\
Train one small net on synthetic faces in which AUs occur together as in BP4D: with each AU by
itself, with a relation layer (SelfAdjustingGCN), and with exact inference over the AUs
(PairwiseInference). Most faces are partly covered, and a covered AU can be predicted from the
others alone. The table compares the three on people that none has seen. Takes a few minutes on
two CPU cores.
"""


def add_parser(subparsers: Any) -> None:
    """Add the parser of `aurel demo`."""
    parser = subparsers.add_parser(
        "demo", help="train and compare on the synthetic faces, in minutes", description=_ABOUT
    )
    parser.add_argument("--out", type=Path, help="folder for the results (demo, demo_2, ...)")
    parser.add_argument("--seed", type=int, default=0, help="of the faces (0)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each variant (3)")
    parser.add_argument(
        "--quick", action="store_true", help="a few faces and one epoch: shows that it works"
    )


def run(args: argparse.Namespace) -> int:
    """Train all variants, print their scores, and write everything into a folder."""
    from aurel.cli.console import make_console
    from aurel.cli.demo_results import comparison, draw, next_commands, reading
    from aurel.cli.demo_runs import VARIANTS, demo_options, splits_of, train_all
    from aurel.cli.demo_scores import score
    from aurel.data.arguments import check_at_least
    from aurel.files import write_json

    check_at_least("--seeds", args.seeds, 1)
    started = time.monotonic()
    console = make_console()
    out = args.out or _free_folder()
    console.print(_ABOUT)
    runs = [
        (variant, demo_options(variant, out, seed, args.seed, args.quick))
        for seed in range(args.seeds)
        for variant in VARIANTS
    ]
    outcomes = []
    try:
        with console.status("training"):
            for outcome in train_all(runs):
                outcomes.append(outcome)
                seconds = time.monotonic() - started
                console.print(
                    f"{len(outcomes)} of {len(runs)} trained after {seconds:.0f} s: "
                    f"{outcome.variant}, seed {outcome.seed}"
                )
    except KeyboardInterrupt as stop:
        raise Interrupted(f"interrupted; the finished trainings are in {out}") from stop
    outcomes.sort(key=lambda outcome: (list(VARIANTS).index(outcome.variant), outcome.seed))
    splits = splits_of(runs[0][1])
    test: Any = splits.test
    labels, visible = test.labels.numpy(), test.visible.numpy()
    scores = score(outcomes, labels, visible, test.subjects)
    console.print(f"\n{_faces(splits)}\n")
    console.print(comparison(scores, args.seeds))
    console.print(f"\n{reading(scores, outcomes, args.quick)}")
    files = draw(outcomes, splits, out)
    seconds = time.monotonic() - started
    write_json(
        out / "metrics.json",
        {"seed": args.seed, "quick": args.quick, "seconds": seconds, "variants": scores},
    )
    files["scores"] = out / "metrics.json"
    console.print("\n" + "\n".join(f"{name:<12} {path}" for name, path in files.items()))
    console.print(f"\ndone in {seconds:.0f} s. Next:\n{next_commands(out)}")
    return 0


def _free_folder() -> Path:
    folder, number = Path("demo"), 1
    while folder.exists():
        number += 1
        folder = Path(f"demo_{number}")
    return folder


def _faces(splits: Splits) -> str:
    protocol = splits.protocol or {}
    sets = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    parts = [
        f"{len(data)} faces of {len(protocol[f'{part}_subjects'])} people for {part}"  # type: ignore[arg-type]
        for part, data in sets.items()
    ]
    return "Data: " + ", ".join(parts)
