"""Measure the benefit of relations: train each model on synthetic faces with and without them.

    python benchmarks/models_on_faces.py            # everything, three seeds
    python benchmarks/models_on_faces.py --quick    # a test with few faces and one epoch

A small backbone is trained for the AUs first. Every model starts from it, is trained with the
losses of its paper on the same faces and schedule, and is tested on other subjects. Occluded AUs
have separate scores, because they can be predicted only from relations. The same model is trained
without its relations (`model_ablations.REMOVED` lists the removed parts). MDHR takes as many
frames, in clips. With --out, rows are written one by one, and the next call continues from there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date
from functools import lru_cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from face_scores import FIRST_TEST_SUBJECT, Faces, Row, gain, line, score
from machine import processor
from model_ablations import BACKBONE, PLAIN, PRESETS, REMOVED, SIZE, build
from torch import Tensor, nn

from aurel.data.synthetic import SyntheticClips, SyntheticFaces
from aurel.data.transforms import horizontal_flip, normalize
from aurel.losses import au_class_weights
from aurel.training.objective import Objective, losses_of

PER_PERSON = 40
FRAMES = 2
BATCH = 16
EASE: dict[str, Any] = {"occlusion": 0.9, "strength": 0.25, "faintest": 0.5}
"""Small changes of pose and light and clear AUs, which small models learn from few faces."""
UNWEIGHTED = {"gtle_net", "lrp_fgg", PLAIN}
"""Models whose papers weight all AUs equally; the others weight them by their rates."""
MEASURES = ("AUC occluded", "AUC visible", "F1 occluded", "F1 visible")
WARM_UP = 6  # epochs of training of the backbone
JOB = ("seed", "model", "relations", "people", "epochs")


def main() -> None:
    """Train and test every model in both forms; write the rows and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one seed, 4 people, one epoch")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", default=list(PRESETS), choices=list(PRESETS))
    parser.add_argument("--people", type=int, default=30, help="in training, and in test")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--out", type=Path, help="writes OUT.jsonl, the rows, and OUT.md")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.people, options.epochs = options.seeds[:1], 4, 1
    rows = []
    for row in run(options):
        print(json.dumps(row), flush=True)
        rows.append(row)
    if options.out:
        options.out.with_suffix(".md").write_text(page(rows))
    print(table(rows))


def run(options: argparse.Namespace) -> Iterator[Row]:
    """Yield a row for each seed, model and form, first the rows that are in the file."""
    file = options.out.with_suffix(".jsonl") if options.out else None
    jobs = [
        (seed, name, relations, options.people, options.epochs)
        for seed, name in product(options.seeds, (PLAIN, *options.models))
        for relations in ((False,) if name == PLAIN else (True, False))
    ]
    if file and file.exists():
        kept = [json.loads(text) for text in file.read_text().splitlines()]
        done = {tuple(row[key] for key in JOB): row for row in kept}
        yield from (done[job] for job in jobs if job in done)
        jobs = [job for job in jobs if job not in done]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(train_and_score, *job) for job in jobs]):
            if file:
                with file.open("a") as lines:
                    lines.write(json.dumps(future.result()) + "\n")
            yield future.result()


def train_and_score(seed: int, name: str, relations: bool, people: int, epochs: int) -> Row:
    """Return the row of one training."""
    torch.set_num_threads(1)
    clips = name == "mdhr"
    training = faces(seed, range(people), clips)
    test = faces(seed, range(FIRST_TEST_SUBJECT, FIRST_TEST_SUBJECT + people), clips)
    state = warm_backbone(seed, range(people))
    start = time.process_time()
    torch.manual_seed(seed)
    net = build(name, relations)
    net.backbone.load_state_dict({key: state[key] for key in net.backbone.state_dict()})
    fit(net, name, training, epochs)
    row: Row = dict(zip(JOB, (seed, name, relations, people, epochs), strict=True))
    row |= {"parameters": sum(parameter.numel() for parameter in net.parameters())}
    row |= score(predict(net, test), test)
    return {**row, "seconds": round(time.process_time() - start, 1)}


@lru_cache(maxsize=4)
def faces(seed: int, people: range, clips: bool) -> Faces:
    """Return 40 frames of each subject, as images or in clips."""
    if not clips:
        return SyntheticFaces("BP4D", people, PER_PERSON, SIZE, seed=seed, **EASE)
    count = PER_PERSON // FRAMES
    return SyntheticClips("BP4D", people, count, FRAMES, SIZE, seed=seed, speed=6.0, **EASE)


@lru_cache(maxsize=1)
def warm_backbone(seed: int, people: range) -> dict[str, Tensor]:
    """Return the weights of the backbone, trained for the AUs of these subjects."""
    torch.manual_seed(seed)
    net = build(PLAIN, False)
    fit(net, PLAIN, faces(seed, people, clips=False), WARM_UP)
    return net.backbone.state_dict()


def fit(net: Any, name: str, data: Faces, epochs: int, lr: float = 3e-3) -> None:
    """Train with AdamW and one cycle of the learning rate; every second batch is mirrored."""
    weights = None if name in UNWEIGHTED else au_class_weights(data.labels.flatten(0, -2))
    losses = {"bce": 1.0} if name == PLAIN else losses_of(name)
    objective = Objective(losses, weights, getattr(net, "region_plan", None))
    batch = BATCH // data.labels[0, ..., 0].numel()
    steps = len(data) // batch
    optimizer = torch.optim.AdamW(net.parameters(), lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=epochs * steps, pct_start=0.2
    )
    net.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(data))[: steps * batch].split(batch):
            sample = items(data, chosen)
            if torch.rand(()) < 0.5:
                sample = horizontal_flip(sample, data.aus)
            loss, _ = objective(net(sample["image"]), sample)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
            schedule.step()


@torch.no_grad()
def predict(net: Any, data: Faces) -> Tensor:
    """Return probabilities (n, N) of all frames."""
    net.eval()
    parts = torch.arange(len(data)).split(100)
    return torch.cat([net(items(data, part)["image"]).probs for part in parts]).flatten(0, -2)


def items(data: Faces, chosen: Tensor) -> dict[str, Tensor]:
    """Return a batch of faces or clips."""
    parts = {"image": data.images, "labels": data.labels, "landmarks": data.landmarks}
    return normalize({key: part[chosen] for key, part in parts.items()})


def table(rows: list[Row]) -> str:
    """Return a Markdown table: scores as mean ± deviation, and gains with their range."""
    lines = [line("model", "form", *MEASURES, "parameters"), line(*["---"] * (3 + len(MEASURES)))]
    for name in (PLAIN, *PRESETS):
        own, full = (
            {row["seed"]: row for row in rows if (row["model"], row["relations"]) == (name, form)}
            for form in (False, True)
        )
        for form, of in (("whole", full), ("without", own)):
            if of:
                cells = [_spread(list(of.values()), measure) for measure in MEASURES]
                count = next(iter(of.values()))["parameters"]
                lines.append(line(name, form, *cells, f"{count:,}"))
        if own.keys() == full.keys() != set():
            lines.append(line(name, "gain", *(gain(own, full, key) for key in MEASURES), ""))
    return "\n".join(lines)


def page(rows: list[Row]) -> str:
    """Return a page with the table and its conditions."""
    people, epochs = rows[0]["people"], rows[0]["epochs"]
    return PAGE.format(
        table=table(rows),
        removed="\n".join(f"- `{name}`: {part}" for name, part in REMOVED.items()),
        seeds=len({row["seed"] for row in rows}),
        people=people,
        frames=people * PER_PERSON,
        epochs=epochs,
        backbone=BACKBONE,
        plain=PLAIN,
        warm_up=WARM_UP,
        clip=FRAMES,
        size=SIZE,
        minutes=round(sum(row["seconds"] for row in rows) / 60),
        date=date.today().isoformat(),
        machine=f"{processor()}, torch {torch.__version__}",
        **EASE,
    )


PAGE = """# Benefit of the relations in each model

    OMP_NUM_THREADS=1 python benchmarks/models_on_faces.py --out benchmarks/results/models_on_faces

{date}; {machine}; {minutes} minutes of processor time for the rows. Rows: `models_on_faces.jsonl`.

The backbone, `{backbone}`, is trained for the AUs first, from random weights ({warm_up} epochs).
Every model starts from it, as the models of the papers start from a pretrained one, and is
trained with the losses of its paper for {epochs} epochs on {frames} synthetic faces of {people}
subjects ({size} pixels; AUs occur together as in BP4D; something covers a part of {occlusion:.0%}
of the faces). It is scored on as many faces of {people} other subjects. *occluded* are the AUs of
which no evidence is visible. "{plain}" continues training with a linear layer.

Scores are means over AUs and {seeds} seeds, ± their standard deviation over seeds. A gain is the
difference of a model with and without relations for each seed, as mean and range. A range that
contains 0 shows no effect; with three seeds, one range of four excludes 0 by chance. All models
have the same settings, chosen on seed 0 so that all models learn. They are much smaller than in
their papers: the table measures the benefit of relations here, not which model is best.

- `mdhr` takes as many frames, in clips of {clip}: its scores are on other frames than the others.
- Every cell of the backbone's last map depends on the whole face, so that an AU can depend on other
  AUs without a graph. `relations.py` excludes this and measures relation layers separately.
- Models of a second stage start without the first stage.
- Without one-sided AUs, `open_graphau_stage1` equals `me_graphau_stage1`: their rows must agree.

{table}

Parts that *without* removes; both forms have the same parameters unless noted:

{removed}
"""


def _spread(rows: list[Row], measure: str) -> str:
    values = [row[measure] for row in rows]
    return f"{statistics.mean(values):.3f} ± {statistics.pstdev(values):.3f}"


if __name__ == "__main__":
    main()
