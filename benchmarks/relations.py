"""Do relations between AUs help, and where? Three label worlds, occluded and visible AUs apart.

    python benchmarks/relations.py             # everything, three seeds
    python benchmarks/relations.py --quick     # one seed

Faces, occluders, rates and nets are the same in all worlds; only the couplings between labels
differ. Each relation layer runs twice with the same parameters: on its own graph ("relation") and
with every node alone ("self"). What a layer gains over `self`, it gains by relations.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import torch
from face_scores import FIRST_TEST_SUBJECT, Row, gain, line, score
from region_net import RELATIONS, Graph, RegionNet
from torch import Tensor
from torch.nn import functional as F

from aurel.data.synthetic import LabelWorld, SyntheticFaces, label_world
from aurel.data.synthetic.label_model import all_states
from aurel.facs import FLIP_49

WORLDS = (0.0, 1.0, 2.0)
SIZE = 64
BATCH = 64


def main() -> None:
    """Train and score every net in every world; write rows as JSON, print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--couplings", type=float, nargs="+", default=list(WORLDS))
    parser.add_argument("--layers", nargs="+", default=list(RELATIONS), choices=list(RELATIONS))
    parser.add_argument("--people", type=int, default=80, help="in training, and in test")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--out", type=Path, help="a .jsonl file for the rows")
    options = parser.parse_args()
    seeds = options.seeds[:1] if options.quick else options.seeds
    jobs = [
        (coupling, seed, options.layers, options.people, options.epochs)
        for seed, coupling in product(seeds, options.couplings)
    ]
    start = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(options.jobs, len(jobs)), mp_context=context) as pool:
        rows = [row for part in pool.map(train_and_score, *zip(*jobs, strict=True)) for row in part]
    if options.out:
        options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(tables(rows))
    print(f"\n{len(seeds)} seeds, {time.perf_counter() - start:.0f} s in {options.jobs} processes")


def train_and_score(
    coupling: float, seed: int, layers: list[str], people: int, epochs: int
) -> list[Row]:
    """Train one net without a relation layer and two of each layer, in one world."""
    torch.set_num_threads(1)
    training = faces(coupling, seed, range(people))
    test = faces(coupling, seed, range(FIRST_TEST_SUBJECT, FIRST_TEST_SUBJECT + people))
    nets: list[tuple[str, Graph]] = [("none", "self")]
    for layer in layers:
        nets += [(layer, "self"), (layer, "full")]
    rows = []
    for layer, graph in nets:
        start = time.process_time()
        torch.manual_seed(seed)
        relation = None if layer == "none" else RELATIONS[layer](len(training.aus), graph)
        net = RegionNet(training.aus, mean_landmarks(training), SIZE, relation)
        fit(net, training, epochs)
        row: Row = {"coupling": coupling, "world": training.label_world, "seed": seed}
        row |= {"layer": layer, "graph": graph, **score(predict(net, test), test)}
        rows.append({**row, "seconds": round(time.process_time() - start, 1)})
        print(json.dumps(rows[-1]), flush=True)
        if layer == "none":
            exact = exact_inference(predict(net, test), label_world("BP4D", coupling))
            rows.append({**row, "layer": "none, then exact inference", **score(exact, test)})
    return rows


def faces(coupling: float, seed: int, people: range) -> SyntheticFaces:
    """Return 40 faces of each person; nine of ten have something in front of them."""
    return SyntheticFaces("BP4D", people, 40, SIZE, seed=seed, coupling=coupling)


def mean_landmarks(data: SyntheticFaces) -> Tensor:
    """Return the mean landmarks of faces and their mirror images, (49, 2)."""
    mean = data.landmarks.mean(0)
    mirrored = torch.tensor([SIZE - 1.0, 0.0]) + mean[list(FLIP_49)] * torch.tensor([-1.0, 1.0])
    return (mean + mirrored) / 2


def fit(net: RegionNet, data: SyntheticFaces, epochs: int, lr: float = 3e-3) -> None:
    """Train with AdamW and one cycle of the learning rate; every second batch is mirrored."""
    images = normalised(data.images)
    steps = len(data) // BATCH
    optimizer = torch.optim.AdamW(net.parameters(), lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=epochs * steps, pct_start=0.2
    )
    net.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(data))[: steps * BATCH].split(BATCH):
            batch = images[chosen].flip(-1) if torch.rand(()) < 0.5 else images[chosen]
            loss = F.binary_cross_entropy_with_logits(net(batch), data.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def predict(net: RegionNet, data: SyntheticFaces) -> Tensor:
    """Return probabilities (n, N) from the mean logits of each face and its mirror image."""
    net.eval()
    parts = normalised(data.images).split(500)
    return torch.cat([(net(part) + net(part.flip(-1))) / 2 for part in parts]).sigmoid()


def exact_inference(probs: Tensor, world: LabelWorld) -> Tensor:
    """Combine local predictions with the law that drew the labels: what relations can give.

    Local logits less the logits of the rates are taken as independent evidence; the result is the
    probability of each label in the exact posterior over all 2^N states.
    """
    rates = torch.tensor(world.statistics.rates)
    states = torch.tensor(all_states(len(world.aus)))
    prior = torch.tensor(world.probabilities).log()
    evidence = probs.double().logit(1e-9) - rates.logit()
    return torch.cat(
        [(part @ states.T + prior).softmax(1) @ states for part in evidence.split(200)]
    )


def normalised(images: Tensor) -> Tensor:
    return (images.float() / 255 - 0.45) / 0.25


def tables(rows: list[Row]) -> str:
    """Return one Markdown table a world: scores as means, gains over `self` with their range."""
    measures = ["AUC occluded", "AUC visible", "F1 occluded", "F1 visible"]
    lines = []
    for world in dict.fromkeys(row["world"] for row in rows):
        here = [row for row in rows if row["world"] == world]
        lines += [f"\n## Couplings: {world}\n", line("layer", "graph", *measures)]
        lines += [line(*["---"] * (2 + len(measures)))]
        for layer in dict.fromkeys(row["layer"] for row in here):
            own, full = _of(here, layer, "self"), _of(here, layer, "full")
            if not full:
                lines += [line(layer, "", *(_mean(own, measure) for measure in measures))]
                continue
            lines += [
                line(layer, "self", *(_mean(own, measure) for measure in measures)),
                line(layer, "relation", *(_mean(full, measure) for measure in measures)),
                line(layer, "gain", *(gain(own, full, measure) for measure in measures)),
            ]
    return "\n".join(lines)


def _of(rows: list[Row], layer: str, graph: Graph) -> dict[int, Row]:
    return {row["seed"]: row for row in rows if (row["layer"], row["graph"]) == (layer, graph)}


def _mean(rows: dict[int, Row], measure: str) -> str:
    return f"{statistics.mean(row[measure] for row in rows.values()):.3f}"


if __name__ == "__main__":
    main()
