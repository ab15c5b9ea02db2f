"""Training, scores and times of the nets of the benchmark of relations."""

from __future__ import annotations

import datetime
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from relation_evidence import Evidence, areas, exact_posterior, local_bayes, share_closed
from relation_labels import LabelTable, correlations, file_table, permuted, world_table
from relation_nets import LAYERS, Net, reference_couplings
from relation_report import Row, agreement, pair_values
from torch import Tensor

BATCH = 256
LEARNING_RATE = 3e-3
LEAST_WAY = 0.01
"""Least difference of the bounds in AUC of which a share is stated."""
LOCAL, EXACT = "local Bayes bound", "exact posterior"
Areas = tuple[float, float]
Graph = Tensor | None


@dataclass(frozen=True)
class Job:
    """A table of labels, on which all layers are trained with one seed.

    Args:
        source: name of a world, or a file.
        groups: the column of the file that names the subject, or None.
        seed: of labels, evidence and nets.
        permute: permute each AU's labels over the frames.
        layers: names of the nets.
        steps: training steps.
        threads: threads of torch.
    """

    source: str | Path
    groups: str | None
    seed: int
    permute: bool
    layers: tuple[str, ...]
    steps: int
    threads: int

    def table(self) -> LabelTable:
        """Return the labels."""
        if isinstance(self.source, Path):
            return file_table(self.source, self.groups, self.seed)
        return world_table(self.source, self.seed)


def run(job: Job) -> list[Row]:
    """Return a row for each bound and each layer, trained and scored.

    With permuted labels no bound is above the local one: the share counts in units of the way
    between the bounds before.

    Raises:
        ValueError: the bounds differ too little.
    """
    torch.set_num_threads(job.threads)
    table = job.table()
    bounds = score_bounds(table, job.seed)
    way = bounds[EXACT][0] - bounds[LOCAL][0]
    if way < LEAST_WAY:
        raise ValueError(
            f"labels must have relations that raise the AUC of covered AUs by {LEAST_WAY} or more, "
            f"got {way:.4f} for {table.name}: a share would be chance"
        )
    if job.permute:
        table = permuted(table, job.seed)
        bounds = {LOCAL: score_bounds(table, job.seed, exact=False)[LOCAL]}
    local = bounds[LOCAL][0]
    rows = [_row(job, table, name, own, local, way, None) for name, own in bounds.items()]
    evidence = Evidence(len(table.aus), job.seed)
    x, covered = held_out_evidence(table, evidence, job.seed)
    for name in job.layers:
        net = train(name, table, evidence, job.seed, job.steps)
        with torch.no_grad():
            scores = torch.cat([net.scores(part) for part in x.split(1000)])
            graph = net.graph(x[:1000])
        own = areas(scores, table.test, covered, table.aus)
        rows.append(_row(job, table, name, own, local, way, graph))
        print({key: value for key, value in rows[-1].items() if key != "graph"}, flush=True)
    return rows


def _row(
    job: Job, table: LabelTable, name: str, own: Areas, local: float, way: float, graph: Graph
) -> Row:
    row: Row = {"world": table.name, "seed": job.seed, "permuted": job.permute, "layer": name}
    row |= {"steps": job.steps, "threads": job.threads, "measured": today()}
    row |= {"auc_covered": round(own[0], 4), "auc_visible": round(own[1], 4)}
    row["closed"] = round(share_closed(own[0], local, local + way), 4)
    if graph is not None:
        row["with_couplings"] = agreement(graph, reference_couplings(table))
        row["with_phi"] = agreement(graph, correlations(table.train))
        row["graph"] = [round(value, 4) for value in pair_values(graph)]
    return row


def score_bounds(table: LabelTable, seed: int, exact: bool = True) -> dict[str, Areas]:
    """Return the AUC (covered, visible) of the bounds on the test labels."""
    evidence = Evidence(len(table.aus), seed)
    x, covered = held_out_evidence(table, evidence, seed)
    ratio = evidence.log_ratio(x)
    scores = {LOCAL: local_bayes(ratio, table.train.mean(0))}
    if exact:
        scores[EXACT] = exact_posterior(ratio, table.states, table.probabilities)
    return {name: areas(own, table.test, covered, table.aus) for name, own in scores.items()}


def held_out_evidence(table: LabelTable, evidence: Evidence, seed: int) -> tuple[Tensor, Tensor]:
    """Return evidence of the test labels and which AUs are covered; equal for equal seeds."""
    return evidence.sample(table.test, torch.Generator().manual_seed(10_000 + seed))


def train(name: str, table: LabelTable, evidence: Evidence, seed: int, steps: int) -> Net:
    """Return a net after training with Adam and one cycle of the learning rate."""
    torch.manual_seed(seed)
    net = LAYERS[name](table.aus, table.train)
    groups = net.parameter_groups(LEARNING_RATE)
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], total_steps=steps, pct_start=0.1
    )
    generator = torch.Generator().manual_seed(seed)
    net.train()
    for _ in range(steps):
        chosen = torch.randint(len(table.train), (BATCH,), generator=generator)
        labels = table.train[chosen]
        optimizer.zero_grad()
        net.loss(evidence.sample(labels, generator)[0], labels).backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def measure(job: Job, rounds: int) -> list[Row]:
    """Return the least time of a forward and of a training step; layers take turns.

    With one thread it is processor time, which other programs disturb less.
    """
    clock = time.process_time if job.threads == 1 else time.perf_counter
    torch.set_num_threads(job.threads)
    table = job.table()
    evidence = Evidence(len(table.aus), job.seed)
    labels = table.train[:BATCH]
    x, _ = evidence.sample(labels, torch.Generator().manual_seed(job.seed))
    nets = {name: LAYERS[name](table.aus, table.train) for name in job.layers}
    least = dict.fromkeys(nets, (float("inf"), float("inf")))
    for _ in range(rounds):
        for name, net in nets.items():
            start = clock()
            with torch.no_grad():
                net.scores(x)
            between = clock()
            net.loss(x, labels).backward()
            end = clock()
            least[name] = (
                min(least[name][0], between - start),
                min(least[name][1], end - between),
            )
    return [
        {
            "world": table.name,
            "layer": name,
            "forward_ms": round(1e3 * forward, 3),
            "step_ms": round(1e3 * step, 3),
            "rounds": rounds,
            "threads": job.threads,
            "measured": today(),
        }
        for name, (forward, step) in least.items()
    ]


def today() -> str:
    """Return the date, as in 2026-01-31."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()
