"""The benchmark of relations: its evidence, bounds, label tables and nets."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from aurel.facs import AUSet

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
AUS = AUSet.of([1, 4, 6, 12, 25])
WITHOUT_A_GRAPH = ("torch TransformerEncoder", "MLP of all evidence")
WITH_A_GRAPH = (
    "TopKGraphConv",
    "SelfAdjustingGCN",
    "GatedEdgeGCN",
    "GatedEdgeGCN with MultiDimensionalEdges",
    "CrossRegionGAT, active_cross_region",
    "CrossRegionGAT, fully_connected",
    "NodeTransformer",
    "PairMessages",
    "PairwiseInference",
)
STRENGTHS = np.linspace(0.3, 1.5, 20_001)


@pytest.fixture(autouse=True)
def _import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def density(x: np.ndarray, direction: np.ndarray, label: int) -> float:
    """Density of the evidence of one AU given its label, up to a factor that labels share."""
    means = np.append(0.0, STRENGTHS)[:, None] * (2 * label - 1) * direction
    values = np.exp(-((x - means) ** 2).sum(1) / 2)
    step = STRENGTHS[1] - STRENGTHS[0]
    shown = (values[1:].sum() - (values[1] + values[-1]) / 2) * step / 1.2
    return float(0.4 * values[0] + 0.6 * shown)


def random_law(num_aus: int) -> tuple[Tensor, Tensor]:
    """All states of some AUs, and random probabilities of them."""
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=num_aus)))
    return states, torch.rand(len(states), dtype=torch.float64).softmax(0)


def test_bounds_are_those_of_brute_force() -> None:
    from relation_evidence import Evidence, exact_posterior, local_bayes

    evidence = Evidence(3, seed=0)
    states, probabilities = random_law(3)
    x, _ = evidence.sample(torch.tensor([[1.0, 0, 1], [0, 0, 1], [1, 1, 1]]), torch.Generator())
    ratio = evidence.log_ratio(x)
    rates = probabilities @ states.double()
    local, exact = local_bayes(ratio, rates), exact_posterior(ratio, states, probabilities)
    for item in range(3):
        given = np.array(
            [
                [density(x[item, j].numpy(), evidence.directions[j].numpy(), y) for y in (0, 1)]
                for j in range(3)
            ]
        )
        joint = probabilities.numpy() * [
            np.prod([given[j, int(state[j])] for j in range(3)]) for state in states
        ]
        expected = (joint[:, None] * states.numpy()).sum(0) / joint.sum()
        np.testing.assert_allclose(exact[item].numpy(), expected, rtol=1e-5)
        odds = given[:, 1] * rates.numpy() / (given[:, 0] * (1 - rates.numpy()))
        np.testing.assert_allclose(local[item].numpy(), odds / (1 + odds), rtol=1e-5)


def test_the_bounds_are_equal_without_relations() -> None:
    from relation_evidence import Evidence, exact_posterior, local_bayes

    evidence, rates = Evidence(4, seed=1), torch.tensor([0.1, 0.5, 0.3, 0.8]).double()
    states, _ = random_law(4)
    probabilities = (states * rates + (1 - states) * (1 - rates)).prod(1)
    x, _ = evidence.sample((torch.rand(50, 4) < rates).float(), torch.Generator())
    ratio = evidence.log_ratio(3 * x)
    torch.testing.assert_close(
        exact_posterior(ratio, states, probabilities), local_bayes(ratio, rates)
    )


def test_evidence_of_a_covered_au_is_noise() -> None:
    from relation_evidence import Evidence

    evidence = Evidence(5, seed=0)
    labels = (torch.rand(40_000, 5) < 0.5).float()
    x, covered = evidence.sample(labels, torch.Generator())
    assert covered.float().mean() == pytest.approx(0.4, abs=0.01)
    signal = (x * evidence.directions).sum(-1) * (2 * labels - 1)
    assert signal[covered].mean() == pytest.approx(0, abs=0.02)
    assert signal[~covered].mean() == pytest.approx(0.9, abs=0.02)
    assert x[covered].square().mean() == pytest.approx(1, abs=0.01)


def small_job(*layers: str, **options: Any) -> Any:
    import relation_runs

    fields = {"source": "DISFA", "groups": None, "seed": 0, "permute": False, "steps": 5}
    return relation_runs.Job(**fields | {"threads": 1} | options, layers=layers)


class Oracle:
    """In place of a net: the exact posterior."""

    def __init__(self, seed: int) -> None:
        from relation_evidence import Evidence
        from relation_labels import world_table

        self.table = world_table("DISFA", seed)
        self.evidence = Evidence(8, seed)

    def scores(self, x: Tensor) -> Tensor:
        from relation_evidence import exact_posterior

        ratio = self.evidence.log_ratio(x)
        return exact_posterior(ratio, self.table.states, self.table.probabilities)

    def graph(self, x: Tensor) -> Tensor:
        couplings = self.table.couplings
        assert couplings is not None
        return couplings.abs()


def test_shares_are_0_without_relations_and_1_for_the_exact_posterior(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import relation_runs

    train = relation_runs.train

    def trained(name: str, *arguments: Any) -> Any:
        return Oracle(0) if name == "oracle" else train(name, *arguments)

    monkeypatch.setattr(relation_runs, "train", trained)
    job = small_job("no relation layer", "oracle", steps=100)
    rows = {row["layer"]: row for row in relation_runs.run(job)}
    closed = {name: row["closed"] for name, row in rows.items()}
    assert closed["local Bayes bound"] == 0
    assert closed["exact posterior"] == closed["oracle"] == 1
    assert closed["no relation layer"] == pytest.approx(0, abs=0.1)
    assert rows["oracle"]["with_couplings"] == 1 and 0 < rows["oracle"]["with_phi"] < 1
    # The same scores for labels without relations: there is nothing to find.
    job = small_job("oracle", permute=True)
    local, oracle = relation_runs.run(job)
    assert local["closed"] == 0 and oracle["closed"] == pytest.approx(0, abs=0.15)


def test_labels_without_relations_have_no_share(tmp_path: Path) -> None:
    import relation_runs

    path = tmp_path / "labels.csv"
    path.write_text("AU1,AU2\n" + "0,0\n0,1\n1,0\n1,1\n" * 30)
    with pytest.raises(ValueError, match=r"labels must have relations .* for labels"):
        relation_runs.run(small_job(source=path))


def test_pairwise_inference_closes_most_of_the_way() -> None:
    import relation_runs

    rows = relation_runs.run(small_job("PairwiseInference", steps=150))
    assert rows[-1]["closed"] > 0.85
    assert rows[-1]["with_couplings"] > 0.9


def test_permuted_labels_keep_rates_and_lose_relations() -> None:
    from relation_labels import correlations, permuted, world_table

    table = world_table("BP4D", seed=0, rows=20_000)
    shuffled = permuted(table, seed=0)
    for before, after in ((table.train, shuffled.train), (table.test, shuffled.test)):
        assert torch.equal(before.sum(0), after.sum(0))
        apart = ~torch.eye(12, dtype=torch.bool)
        assert correlations(before)[apart].abs().max() > 0.4
        assert correlations(after)[apart].abs().max() < 0.04


def test_a_world_has_labels_of_its_law() -> None:
    from relation_labels import world_table

    table = world_table("DISFA", seed=3, rows=20_000)
    assert len(table.train) == len(table.test) == 20_000
    assert not torch.equal(table.train, table.test)
    expected = table.probabilities @ table.states.double()
    torch.testing.assert_close(table.test.mean(0).double(), expected, atol=0.01, rtol=0)


FILE = """frame, subject, AU01_c, AU04_c, AU09_c, AU01_r
0,a,1,0,0,2.5
1,a,0,1,0,0
2,b,1,1,0,1
3,b,-1,1,0,1
4,c,0,1,0.0,1
5,c,1.0,0,0,1
"""


def test_a_file_is_split_by_subject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import relation_labels
    from relation_labels import file_table

    monkeypatch.setattr(relation_labels, "ROWS", 1)

    path = tmp_path / "labels.csv"
    path.write_text(FILE)
    seen = set()
    for seed in range(8):
        table = file_table(path, "subject", seed)
        assert table.aus == AUSet.of([1, 4])
        test = [tuple(row) for row in table.test.tolist()]
        seen.add(tuple(test))
        assert len(table.train) + len(test) == 5
        assert table.probabilities.sum() == pytest.approx(1)
        for state, probability in zip(table.states, table.probabilities, strict=True):
            share = (table.train == state).all(1).double().mean()
            assert probability == pytest.approx(float(share)) and share > 0
    assert seen == {((1, 0), (0, 1)), ((1, 1),), ((0, 1), (1, 0))}
    assert "left out, for they never change: AU09" in capsys.readouterr().err
    monkeypatch.setattr(relation_labels, "ROWS", 7)
    repeated = file_table(path, "subject", seed)
    assert len(repeated.test) in (7, 8)
    assert torch.equal(repeated.test[: len(table.test)], table.test)
    assert torch.equal(repeated.train, table.train)


@pytest.mark.parametrize(
    ("text", "groups", "message"),
    [
        (FILE.replace("2,b,1", "2,b,3"), "subject", r"labels.csv:4: a label must be .* got '3'"),
        (FILE.replace(",1\n", "\n", 1), "subject", r"labels.csv:4 must have 6 cells, got 5"),
        (FILE, "person", r"groups must be a column of .* got 'person'"),
        ("frame,subject\n", None, r"must have columns such as AU01, got frame, subject"),
        (FILE.replace("4,c", "4,b").replace("5,c", "5,b"), "subject", "3 groups, got 2 and 2"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, groups: Any, message: str) -> None:
    from relation_labels import file_table

    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        file_table(path, groups, 0)


def test_every_layer_is_tested() -> None:
    from relation_nets import LAYERS

    assert {"no relation layer", *WITHOUT_A_GRAPH, *WITH_A_GRAPH} == set(LAYERS)


@pytest.mark.parametrize("name", ["no relation layer", *WITHOUT_A_GRAPH, *WITH_A_GRAPH])
def test_only_a_relation_layer_uses_the_evidence_of_other_aus(name: str) -> None:
    from relation_nets import LAYERS

    train = (torch.rand(200, 5) < 0.5).float()
    train[:, 1] = train[:, 0]
    net = LAYERS[name](AUS, train)
    labels = train[:8]
    net.loss(torch.randn(8, 5, 16), labels).backward()
    groups = net.parameter_groups(0.1)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in net.parameters())
    net.eval()
    x = torch.randn(6, 5, 16)
    influence = torch.autograd.functional.jacobian(net.scores, x).abs().sum(-1)
    apart = ~torch.eye(5, dtype=torch.bool)
    own = influence[range(6), :, range(6)]
    assert (own[:, ~apart] > 0).any() and torch.isfinite(own).all()
    assert (own[:, apart] > 0).any() == (name != "no relation layer")
    graph = net.graph(x)
    assert (graph is not None) == (name in WITH_A_GRAPH)
    if graph is not None:
        assert graph.shape == (5, 5) and torch.isfinite(graph).all()


def test_agreement_is_the_correlation_of_ranks_of_pairs() -> None:
    from relation_report import agreement

    graph = torch.tensor([[9.0, 1, 2], [1, 9, 4], [0, 4, 9]])  # pairs 1, 1, 4
    assert agreement(graph, torch.tensor([[0.0, 1, 1], [0, 0, -5], [0, -5, 0]])) == 1
    other = torch.tensor([[0.0, 3, 3], [3, 0, 1], [3, 1, 0]])
    assert agreement(graph, other) == -1
    assert agreement(torch.ones(3, 3), other) is None


def test_the_page_holds_a_row_for_each_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import relation_labels
    import relations

    monkeypatch.setattr(relation_labels.world_table, "__defaults__", (2000,))
    monkeypatch.setattr(relations, "ROUNDS", 1)
    layers = ["no relation layer", "SelfAdjustingGCN", "PairMessages"]
    out = tmp_path / "results" / "relations"
    arguments = ["--world", "DISFA", "--seeds", "0", "1", "--steps", "3", "--jobs", "1"]
    assert relations.main([*arguments, "--layers", *layers, "--out", str(out)]) == 0
    about, *results = map(json.loads, out.with_suffix(".jsonl").read_text().splitlines())
    scores = [row for row in results if row["kind"] == "score"]
    assert len(scores) == 2 * (2 + 3) + (1 + 3)
    assert {(row["threads"], row["steps"]) for row in scores} == {(1, 3)}
    assert [row["layer"] for row in results if row["kind"] == "time"] == layers
    page = out.with_suffix(".md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    for name in ("exact posterior", "local Bayes bound", *layers):
        (row,) = (row for row in rows if row.startswith(f"| {name} |"))
        assert about["date"] in row
    (base,) = (row for row in rows if "SelfAdjustingGCN" in row)
    assert "| 1.00 |" in base
    assert page.splitlines()[-len(rows) :] == rows
    assert "## DISFA" in capsys.readouterr().out


def test_the_bar_is_for_pairwise_inference_on_the_world_of_bp4d() -> None:
    from relations import misses_bar

    row = {"world": "BP4D", "layer": "PairwiseInference", "permuted": False, "steps": 400}
    assert not misses_bar([row | {"closed": 0.89}, row | {"closed": 0.92}])
    assert misses_bar([row | {"closed": 0.89}])
    for other in (
        {"steps": 399},
        {"permuted": True},
        {"world": "DISFA"},
        {"layer": "PairMessages"},
    ):
        assert not misses_bar([row | {"closed": 0.1} | other])


def test_groups_need_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    from relations import parse

    with pytest.raises(SystemExit):
        parse(["--groups", "subject"])
    assert "--groups must name a column of --labels FILE" in capsys.readouterr().err
