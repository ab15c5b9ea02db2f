"""The tables of aurel.facs against the papers', written out again here."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aurel.facs import (
    ACTION_UNITS,
    AU_SETS,
    FLIP_49,
    FOLDS,
    INNER_EYE_CORNERS,
    LANDMARKS_66_TO_49,
    LANDMARKS_68_TO_49,
    LEFT_EYE,
    OPENGRAPHAU_PARENTS_CORRECTED,
    OPENGRAPHAU_PARENTS_RELEASED,
    REGION_SEVENTHS,
    RIGHT_EYE,
    AUCenter,
    AUSet,
    RegionGroup,
    au_center_rules,
    check_labels,
    default_au_set,
    fold_split,
    known_labels,
    labels_from_regions,
    region_labels,
    region_plan,
)

Released = Callable[[str], dict[str, list[int]]]
NAMES = """
1 Inner brow raiser; 2 Outer brow raiser; 4 Brow lowerer; 5 Upper lid raiser; 6 Cheek raiser;
7 Lid tightener; 9 Nose wrinkler; 10 Upper lip raiser; 11 Nasolabial deepener; 12 Lip corner puller;
13 Sharp lip puller; 14 Dimpler; 15 Lip corner depressor; 16 Lower lip depressor; 17 Chin raiser;
18 Lip pucker; 19 Tongue show; 20 Lip stretcher; 22 Lip funneler; 23 Lip tightener; 24 Lip pressor;
25 Lips part; 26 Jaw drop; 27 Mouth stretch; 32 Lip bite; 38 Nostril dilator;
39 Nostril compressor; 43 Eyes closed
"""

ORDERS = {
    "BP4D": "1 2 4 6 7 10 12 14 15 17 23 24",
    "BP4D+": "1 2 4 6 7 10 12 14 15 17 23 24",
    "DISFA": "1 2 4 6 9 12 25 26",
    "EmotioNet": "1 2 4 5 6 9 12 17 20 25 26 43",
    "Aff-Wild2": "1 2 4 6 7 10 12 15 23 24 25 26",
    "RAF-AU": "1 2 4 5 6 9 10 12 16 17 25 26 27",
    "OpenGraphAU-main": (
        "1 2 4 5 6 7 9 10 11 12 13 14 15 16 17 18 19 20 22 23 24 25 26 27 32 38 39"
    ),
    "OpenGraphAU": (
        "1 2 4 5 6 7 9 10 11 12 13 14 15 16 17 18 19 20 22 23 24 25 26 27 32 38 39 "
        "L1 R1 L2 R2 L4 R4 L6 R6 L10 R10 L12 R12 L14 R14"
    ),
}


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split())


def test_names_are_those_of_facs() -> None:
    for entry in NAMES.replace("\n", " ").split(";"):
        number, name = entry.strip().split(" ", 1)
        assert ACTION_UNITS[int(number)].name == name


def test_muscles_and_regions() -> None:
    assert ACTION_UNITS[12].muscles == ("zygomaticus major",)
    assert ACTION_UNITS[6].muscles == ("orbicularis oculi, pars orbitalis",)
    assert len(ACTION_UNITS[4].muscles) == 3
    assert ACTION_UNITS[19].muscles == ()
    by_region = {"upper": "1 2 4 5 7 43", "middle": "6 9 11 38 39"}
    by_region["lower"] = "10 12 13 14 15 16 17 18 19 20 22 23 24 25 26 27 32"
    for region, members in by_region.items():
        assert all(ACTION_UNITS[number].region == region for number in numbers(members))


@pytest.mark.parametrize("dataset", ORDERS)
def test_order_of_each_data_set(dataset: str) -> None:
    aus = AUSet.of(dataset.lower())
    assert aus.name == dataset
    assert AUSet.of(ORDERS[dataset].split()) == aus
    assert len(aus) == len(ORDERS[dataset].split())


@pytest.mark.parametrize("spelling", ["bp4d+", "BP4D_plus", "bp4d plus"])
def test_data_set_names_in_any_spelling(spelling: str) -> None:
    assert AUSet.of(spelling).name == "BP4D+"
    assert AUSet.of("affwild2") is AU_SETS["Aff-Wild2"]


def test_column_names() -> None:
    aus = AUSet.of([1, "12", "AU12L", "R12", np.int64(4), "au25"])
    assert aus.numbers == (1, 12, 12, 12, 4, 25)
    assert aus.sides == ("", "", "L", "R", "", "")
    assert aus.names == ("AU01", "AU12", "AU12L", "AU12R", "AU04", "AU25")
    assert aus.titles[1:3] == ("Lip corner puller", "Left lip corner puller")
    assert [aus.index(au) for au in (12, "L12", "AU12R", "AU25")] == [1, 2, 3, 5]
    assert AUSet.of(aus) is aus


def test_sets_are_equal_whatever_their_name() -> None:
    assert AUSet.of("BP4D") == AUSet.of("BP4D+") == AUSet.of(AUSet.of("BP4D").numbers)
    assert AUSet.of([1, 2]) != AUSet.of([2, 1])
    assert AUSet.of(["L1"]) != AUSet.of(["R1"])
    assert hash(AUSet.of("BP4D")) == hash(AUSet.of("BP4D+"))


@pytest.mark.parametrize("dataset", ORDERS)
def test_a_set_survives_json(dataset: str) -> None:
    aus = AUSet.of(dataset)
    again = AUSet.from_dict(json.loads(json.dumps(aus.to_dict())))
    assert again == aus and again.name == aus.name


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ([1, 3], "number must be a facial AU of FACS .* got 3$"),
        ([51], "number must be a facial AU of FACS .* got 51"),
        (["L99"], "number must be a facial AU of FACS .* got 99"),
        ([0], "number must be a facial AU of FACS .* got 0"),
        ([1, 2, 1], "numbers must hold each AU once, got AU01 twice"),
        ([], "at least one AU"),
        (["L12R"], "'L12R'"),
        ("BP5D", "'BP5D'"),
        (12, "default_au_set"),
    ],
)
def test_wrong_sets_are_refused(spec: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AUSet.of(spec)  # type: ignore[arg-type]


def test_wrong_sides_are_refused() -> None:
    with pytest.raises(ValueError, match="'', 'L' or 'R', got 'left'"):
        AUSet("mine", (1,), ("left",))
    with pytest.raises(ValueError, match=r"one entry an AU \(2\), got 1"):
        AUSet("mine", (1, 2), ("L",))


def test_default_sets() -> None:
    assert [default_au_set(n).name for n in (12, 8, 41)] == ["BP4D", "DISFA", "OpenGraphAU"]
    aus = default_au_set(5)
    assert aus == AUSet.unnamed(5) and len(aus) == 5 and not aus.named
    assert aus.flip_permutation() == (0, 1, 2, 3, 4)
    assert len(set(aus.names)) == 5
    assert AUSet.from_dict(aus.to_dict()) == aus
    for use in (aus.regions, lambda: au_center_rules(aus), lambda: region_plan(aus)):
        with pytest.raises(
            ValueError, match="aus must name the AUs for .* pass the name of a data set"
        ):
            use()
    with pytest.raises(ValueError, match="num_aus must be at least 1, got 0"):
        default_au_set(0)


def test_columns_from_another_set() -> None:
    bp4d, disfa = AUSet.of("BP4D"), AUSet.of("DISFA")
    shared = AUSet.of([12, 1, 6])
    labels = torch.arange(12).expand(2, 12)
    assert labels[:, shared.columns_from(bp4d)].tolist() == [[6, 0, 3]] * 2
    with pytest.raises(ValueError, match="other must hold AU09, AU25, AU26, got the AU set BP4D"):
        disfa.columns_from(bp4d)
    with pytest.raises(ValueError, match=r"both AU sets must name their AUs, got .*unnamed"):
        AUSet.unnamed(8).columns_from(disfa)
    with pytest.raises(ValueError, match=r"au must be in the AU set BP4D \(AU01, .*\), got AU09"):
        bp4d.index(9)


@given(st.permutations(AU_SETS["OpenGraphAU"].names), st.integers(1, 41))
def test_columns_from_finds_each_au(shuffled: list[str], count: int) -> None:
    whole, part = AUSet.of(shuffled), AUSet.of(shuffled[:count][::-1])
    columns = part.columns_from(whole)
    assert tuple(whole.names[column] for column in columns) == part.names


@given(st.permutations(AU_SETS["OpenGraphAU"].names))
def test_mirroring_swaps_the_sides_and_undoes_itself(shuffled: list[str]) -> None:
    aus = AUSet.of(shuffled)
    permutation = aus.flip_permutation()
    assert [permutation[column] for column in permutation] == list(range(len(aus)))
    swapped = {"L": "R", "R": "L"}
    for column, partner in enumerate(permutation):
        name = aus.names[column]
        assert aus.names[partner] == name[:-1] + swapped.get(name[-1], name[-1])


def test_mirroring_needs_both_sides() -> None:
    assert AUSet.of("BP4D").flip_permutation() == tuple(range(12))
    with pytest.raises(ValueError, match="without AU12R"):
        AUSet.of(["L12", 4]).flip_permutation()


def test_lateral_parents_of_open_graph_au() -> None:
    aus = AUSet.of("OpenGraphAU")
    # As released: AU1, AU2, AU4, AU6, AU10, AU11 (sic), AU14 for L and R each.
    released = [aus.numbers[parent] for parent in OPENGRAPHAU_PARENTS_RELEASED]
    assert released == [n for n in (1, 2, 4, 6, 10, 11, 14) for _ in "LR"]
    corrected = tuple(aus.numbers[parent] for parent in OPENGRAPHAU_PARENTS_CORRECTED)
    assert corrected == aus.numbers[27:]


# Points of the 68-point scheme that change places in a mirrored face.
MIRROR_68 = {
    **{i: 16 - i for i in range(17)},
    **{i: 43 - i for i in range(17, 27)},
    **{i: i for i in (27, 28, 29, 30, 33, 51, 57, 62, 66)},
    **{a: b for p, q in ((31, 35), (32, 34)) for a, b in ((p, q), (q, p))},
    **{
        a: b
        for p, q in ((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46))
        for a, b in ((p, q), (q, p))
    },
    **{
        a: b
        for p, q in ((48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67))
        for a, b in ((p, q), (q, p))
    },
}


def test_68_points_to_49_agree_with_the_mirror() -> None:
    assert len(MIRROR_68) == 68
    assert set(range(68)) - set(LANDMARKS_68_TO_49) == {*range(17), 60, 64}
    assert list(LANDMARKS_68_TO_49) == sorted(LANDMARKS_68_TO_49)
    for point, partner in enumerate(FLIP_49):
        assert LANDMARKS_68_TO_49[partner] == MIRROR_68[LANDMARKS_68_TO_49[point]]
    # The same features: outer eye corners 36 and 45, inner 39 and 42, mouth corners 48 and 54.
    assert [LANDMARKS_68_TO_49.index(p) for p in (36, 39, 42, 45, 48, 54)] == [
        *(19, 22, 25, 28, 31, 37)
    ]
    assert INNER_EYE_CORNERS == (22, 25)
    assert {FLIP_49[point] for point in LEFT_EYE} == set(RIGHT_EYE)


def test_66_points_are_the_68_without_the_inner_mouth_corners() -> None:
    of_66 = [point for point in range(68) if point not in (60, 64)]
    assert [of_66[point] for point in LANDMARKS_66_TO_49] == list(LANDMARKS_68_TO_49)


# SACL, Table 2: landmarks of the two centers, shift in inner-eye distances (y down).
CENTERS = {
    1: ((4, 5), -1 / 2),
    2: ((1, 8), -1 / 3),
    4: ((2, 7), 1 / 3),
    6: ((24, 29), 1),
    7: ((21, 26), 0),
    9: ((15, 17), -1 / 2),
    10: ((43, 45), 0),
    12: ((31, 37), 0),
    14: ((31, 37), 0),
    15: ((31, 37), 0),
    17: ((39, 41), 1 / 2),
    23: ((34, 40), 0),
    24: ((34, 40), 0),
    25: ((34, 40), 0),
    26: ((39, 41), 1 / 2),
}


@pytest.mark.parametrize(
    ("dataset", "pairs", "nodes"),
    [
        ("BP4D", 9, (0, 2, 4, 6, 8, 10, 12, 12, 12, 14, 16, 16)),
        ("DISFA", 8, (0, 2, 4, 6, 8, 10, 12, 14)),
    ],
)
def test_center_rules(dataset: str, pairs: int, nodes: tuple[int, ...]) -> None:
    rules = au_center_rules(dataset)
    assert len(rules.points) == len(rules.offsets) == pairs
    assert rules.num_nodes == 2 * pairs
    assert rules.au_nodes == tuple((node, node + 1) for node in nodes)
    for number, (left, _) in zip(AUSet.of(dataset).numbers, rules.au_nodes, strict=True):
        points, offset = CENTERS[number]
        assert rules.points[left // 2] == points
        assert rules.offsets[left // 2] == pytest.approx(offset)


def test_centers_are_mirror_images() -> None:
    for number, ((left, right), _) in CENTERS.items():
        if number in (23, 24, 25):
            assert FLIP_49[left] == left and FLIP_49[right] == right
        else:
            assert FLIP_49[left] == right, number


def test_aus_without_a_center_rule_are_named_and_can_be_given() -> None:
    with pytest.raises(ValueError, match=r"AU05, AU20, AU43 of the AU set EmotioNet.*extra_rules"):
        au_center_rules("EmotioNet")
    extra = {5: AUCenter((21, 26)), 20: AUCenter((31, 37)), 43: AUCenter((20, 27), 0.1)}
    rules = au_center_rules("EmotioNet", extra)
    assert rules.au_nodes[AUSet.of("EmotioNet").index(20)] == rules.au_nodes[6]
    assert rules.points[-1] == (20, 27) and rules.offsets[-1] == 0.1
    with pytest.raises(ValueError, match=r"0..48, got 60"):
        AUCenter((60, 64))


def test_lateral_aus_use_the_centers_of_their_main_au() -> None:
    rules = au_center_rules(["L12", "R12", 12])
    assert rules.au_nodes == ((0, 1),) * 3


@pytest.mark.parametrize(
    ("dataset", "groups"),
    [
        (
            "BP4D",
            {"upper": "1 2 4 7", "middle": "6", "lower1": "12 14 15", "lower2": "10 17 23 24"},
        ),
        ("DISFA", {"upper": "1 2 4", "middle": "6 9", "lower": "12 25 26"}),
    ],
)
def test_region_groups_of_mdhr(dataset: str, groups: dict[str, str]) -> None:
    aus, plan = AUSet.of(dataset), region_plan(dataset)
    found = {
        name: tuple(aus.numbers[column] for column in columns)
        for name, columns in zip(plan.names, plan.columns, strict=True)
    }
    assert found == {name: numbers(members) for name, members in groups.items()}
    assert plan.num_classes == tuple(2 ** len(numbers(members)) for members in groups.values())
    assert plan.regions == tuple(name.rstrip("12") for name in groups)
    for column, group in enumerate(plan.group_of):
        assert column in plan.columns[group]


def test_region_groups_fit_the_released_heads(released: Released) -> None:
    heads = {"BP4D": ("up", "mid", "down1", "down2"), "DISFA": ("up", "mid", "down")}
    for dataset, names in heads.items():
        shapes = released(f"mdhr_resnet50_{dataset.lower()}")
        classes = tuple(shapes[f"LRM.{name}_fc.weight"][0] for name in names)
        assert region_plan(dataset).num_classes == classes


def test_groups_follow_the_aus_and_not_their_order() -> None:
    backwards = AUSet.of(AUSet.of("BP4D").numbers[::-1])
    plan = region_plan(backwards)
    assert [backwards.numbers[column] for column in plan.columns[3]] == [10, 17, 23, 24]


@pytest.mark.parametrize("dataset", ORDERS)
def test_every_column_has_one_group_of_its_region(dataset: str) -> None:
    aus, plan = AUSet.of(dataset), region_plan(dataset)
    assert sorted(c for columns in plan.columns for c in columns) == list(range(len(aus)))
    assert max(len(columns) for columns in plan.columns) <= 4
    for column, group in enumerate(plan.group_of):
        assert plan.regions[group] == aus.regions()[column]
    assert set(plan.regions) <= set(REGION_SEVENTHS)


def test_own_region_table() -> None:
    table = [RegionGroup("brow", "upper", (4, 1)), RegionGroup("mouth", "lower", (12,))]
    plan = region_plan([1, 4, 12], table)
    assert plan.columns == ((1, 0), (2,)) and plan.names == ("brow", "mouth")
    with pytest.raises(ValueError, match="AU12 0 times"):
        region_plan([1, 4, 12], table[:1])
    with pytest.raises(ValueError, match="table must name AUs of the AU set custom, got AU12"):
        region_plan([1, 4], table)
    with pytest.raises(ValueError, match="AU12 2 times"):
        region_plan([1, 4, 12], [*table, table[1]])


@pytest.mark.parametrize(
    ("dataset", "labels", "combined"),
    [
        ("BP4D", "0 0 0 0 1 0 0 0 0 0 1 0", "1 0 0 2"),
        ("BP4D", "0 0 0 0 1 1 0 1 0 1 0 0", "1 0 2 12"),
        ("BP4D", "0 0 0 0 0 1 1 0 0 0 0 0", "0 0 4 8"),
        ("BP4D", "1 1 0 1 0 0 0 0 0 0 0 1", "12 1 0 1"),
        ("DISFA", "1 1 0 0 0 0 0 0", "6 0 0"),
        ("DISFA", "0 0 1 1 0 1 0 1", "1 2 5"),
    ],
)
def test_combination_labels(dataset: str, labels: str, combined: str) -> None:
    plan = region_plan(dataset)
    for dtype in (torch.float32, torch.int64):
        found = region_labels(torch.tensor(numbers(labels), dtype=dtype), plan)
        assert found.dtype == torch.int64
        assert tuple(found.tolist()) == numbers(combined)


@given(st.lists(st.sampled_from([0, 1, -1]), min_size=12, max_size=12))
def test_combination_labels_can_be_undone(labels: list[int]) -> None:
    plan = region_plan("BP4D")
    given_labels = torch.tensor([labels])
    again = labels_from_regions(region_labels(given_labels, plan), plan)
    for columns in plan.columns:
        group = given_labels[:, list(columns)]
        expected = group if (group >= 0).all() else torch.full_like(group, -1)
        assert torch.equal(again[:, list(columns)], expected)


# SACL, Table 3.
TABLE_3 = {
    "BP4D": (
        "F001 F002 F008 F009 F010 F018 F016 F023 M001 M004 M007 M008 M012 M014",
        "F003 F005 F011 F013 F020 F022 M002 M005 M010 M011 M013 M016 M017 M018",
        "F004 F006 F007 F012 F014 F015 F017 F019 F021 M003 M006 M009 M015",
    ),
    "DISFA": (
        "SN001 SN002 SN009 SN010 SN016 SN026 SN027 SN030 SN032",
        "SN006 SN011 SN012 SN013 SN018 SN021 SN024 SN028 SN031",
        "SN003 SN004 SN005 SN007 SN008 SN017 SN023 SN025 SN029",
    ),
}


@pytest.mark.parametrize("dataset", TABLE_3)
def test_folds_are_the_published_ones(dataset: str) -> None:
    parts = tuple(set(part.split()) for part in TABLE_3[dataset])
    assert tuple(map(set, FOLDS[dataset])) == parts
    assert sum(map(len, FOLDS[dataset])) == len(set().union(*parts))
    for fold, tested in ((1, 2), (2, 1), (3, 0)):
        train, test = fold_split(dataset.lower(), fold)
        assert set(test) == parts[tested]
        assert set(train) == set().union(*(p for i, p in enumerate(parts) if i != tested))
        assert len(train) + len(test) == sum(map(len, parts))


def test_fold_files_begin_as_published() -> None:
    train, test = fold_split("BP4D", 1)
    assert train[:2] == ("F001", "M007") and train[14] == "M011" and test[0] == "F007"
    assert fold_split("DISFA", 3)[0][0] == "SN013"


def test_wrong_folds_are_refused() -> None:
    with pytest.raises(ValueError, match="fold must be in 1..3, got 0"):
        fold_split("BP4D", 0)
    with pytest.raises(ValueError, match="BP4D, DISFA, got 'EmotioNet'"):
        fold_split("EmotioNet", 1)


def test_released_outputs_have_the_width_of_their_sets(released: Released) -> None:
    def width(file: str, key: str) -> int:
        return released(file)[key][0]

    assert width("me_graphau_stage1_resnet50_bp4d", "head.sc") == len(AUSet.of("BP4D"))
    assert width("me_graphau_stage1_resnet50_disfa", "head.sc") == len(AUSet.of("DISFA"))
    assert width("macg_resnet50_emotionet", "head.sc") == len(AUSet.of("EmotioNet"))
    main = width("open_graphau_stage1_resnet50", "head.main_sc")
    lateral = width("open_graphau_stage1_resnet50", "head.sub_sc")
    aus = AUSet.of("OpenGraphAU")
    assert (main, lateral) == (aus.sides.count(""), len(OPENGRAPHAU_PARENTS_RELEASED))


@pytest.mark.parametrize("value", [9, 999, 2, -2, 0.5, float("nan")])
def test_other_labels_are_named(value: float) -> None:
    labels = torch.tensor([[0.0, 1, -1], [1, value, 0]])
    with pytest.raises(ValueError, match=rf"targets must be .* got {value:g} at \(1, 1\)"):
        check_labels(labels, "targets")
    with pytest.raises(ValueError, match="labels must be"):
        known_labels(labels)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.float16, torch.float64])
def test_known_labels(dtype: torch.dtype) -> None:
    labels = torch.tensor([[0, 1, -1]], dtype=dtype)
    check_labels(labels)
    assert known_labels(labels).tolist() == [[True, True, False]]
    assert known_labels(torch.tensor([True, False])).all()
