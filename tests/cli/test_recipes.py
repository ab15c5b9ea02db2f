"""Recipes can be parsed, all names in them exist, and every value has a source."""

from __future__ import annotations

from pathlib import Path

import pytest

from aurel.cli.config import parse
from aurel.cli.demo_runs import EXACT, demo_options
from aurel.cli.main import main
from aurel.cli.recipes import FOLDER, title
from aurel.data.registry import dataset_info
from aurel.facs import AUSet
from aurel.models.registry import make_config, model_info
from aurel.training.objective import Objective, losses_of
from aurel.training.schedules import schedule

RECIPES = sorted(FOLDER.glob("*.yaml"))


def test_there_are_recipes() -> None:
    names = {path.stem for path in RECIPES}
    assert {"sacl_bp4d", "sacl_disfa", "sacl_synthetic", "me_graphau_stage1_bp4d"} <= names


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_all_names_in_a_recipe_exist(path: Path) -> None:
    options, checkpoint, text = parse("fit", ["--config", str(path)])
    assert checkpoint is None
    declared = dataset_info(options.data.dataset)
    declared.check_fold(options.data.fold)
    assert options.data.triplets or declared.aus is not None
    info = model_info(options.model.name)
    make_config(info, declared.aus or AUSet.of("BP4D"), options.model.options)
    assert (options.data.frames is not None) == info.takes_clips
    # Without a tag, timm chooses other published weights than the authors.
    assert not options.model.pretrained or "." in str(options.model.backbone)
    Objective(losses_of(options.model.name, options.losses))
    steps = 10 * options.trainer.max_epochs
    milestones = [round(10 * epoch) for epoch in options.optimizer.milestones]
    warmup = round(10 * options.optimizer.warmup_epochs)
    schedule(options.optimizer.schedule, steps, warmup, milestones)
    assert "name:" in text


@pytest.mark.parametrize("path", [p for p in RECIPES if "synthetic" not in p.stem], ids=str)
def test_every_value_has_its_source(path: Path) -> None:
    before = ""
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        value = line.partition(":")[2].strip()
        is_setting = bool(value) and not line.lstrip().startswith("#")
        assert not is_setting or "# " in line or before.lstrip().startswith("#"), (number, line)
        before = line


def test_overrides_win_over_the_file() -> None:
    arguments = ["--config", str(FOLDER / "sacl_bp4d.yaml"), "--data.root", "/data/BP4D"]
    options, _, _ = parse("fit", [*arguments, "--data.fold", "2", "--losses.landmark", "0"])
    assert (options.data.root, options.data.fold) == ("/data/BP4D", 2)
    assert options.losses == {"asymmetric": 1.0, "dice": 1.0, "landmark": 0}
    assert options.optimizer.lr == 1e-3 and options.trainer.gradient_clip_val == 5.0


def test_overrides_win_wherever_they_stand() -> None:
    file = str(FOLDER / "sacl_bp4d.yaml")
    for recipe in (["--config", file], [f"--config={file}"]):
        options, _, _ = parse("fit", ["--data.fold", "3", *recipe, "--data.root", "/data"])
        assert (options.data.fold, options.data.root, options.model.name) == (3, "/data", "sacl")


@pytest.mark.parametrize("name", ["me_graphau_bp4d", "lrp_fgg_affwild2"])  # with and without fold
def test_the_written_options_of_a_run_are_those_of_the_run(name: str, tmp_path: Path) -> None:
    options, _, text = parse("fit", ["--config", str(FOLDER / f"{name}.yaml")])
    (tmp_path / "config.yaml").write_text(text)
    assert parse("test", ["--config", str(tmp_path / "config.yaml")])[0] == options


def test_the_demo_is_its_recipe() -> None:
    recipe = str(FOLDER / "au_windows_synthetic.yaml")
    options, _, _ = parse("fit", ["--config", recipe, "--out", "d/x"])
    demo = demo_options(EXACT, Path("d"), seed=0, faces=0, quick=False)
    demo.out = options.out
    demo.model.options["relation"] = "none"
    demo.model.backbone = "test_resnet"
    assert demo == options


def test_a_recipe_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_path = parse("fit", ["--config", str(FOLDER / "sacl_bp4d.yaml")])[0]
    (tmp_path / "sacl_bp4d").mkdir()  # for example the folder of a run
    monkeypatch.chdir(tmp_path)
    assert parse("fit", ["--config", "sacl_bp4d"])[0] == by_path
    assert parse("test", ["--config=sacl_bp4d"])[0] == by_path
    (tmp_path / "mine.yaml").write_text("model: {name: macg}")
    assert parse("fit", ["--config", "mine.yaml"])[0].model.name == "macg"
    assert parse("fit", ["--config", "{model: {name: mdhr}}"])[0].model.name == "mdhr"


@pytest.mark.parametrize("config", ["sacl_bp4", "recipes/sacl_bp4d.yaml", "sacl_bp4d.yaml"])
def test_an_unknown_recipe_lists_the_nearest(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = f"config must be a file or the name of a recipe, got '{config}'; nearest: sacl_bp4d"
    with pytest.raises(ValueError, match=message):
        parse("fit", ["--config", config])


def test_recipes_are_listed_with_their_titles(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "sacl_*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "sacl_bp4d       SACL, ResT-Lite, BP4D."
    assert [line.split()[0] for line in lines[:-2]] == sorted(p.stem for p in FOLDER.glob("sacl_*"))
    assert lines[-1] == f"files: {FOLDER}"
    assert main(["recipes", "nothing*"]) == 2
    assert "pattern must match a recipe, got 'nothing*'; recipes: " in capsys.readouterr().err


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_first_line_is_a_title(path: Path) -> None:
    assert title(path.stem).endswith(".") and len(title(path.stem)) < 100
