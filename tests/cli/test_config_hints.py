"""Options that are misspelled or missing: advice, and never a guess."""

from __future__ import annotations

from pathlib import Path

import pytest

from aurel.cli.config import parse
from aurel.cli.main import main

BASE = ["--config", "me_graphau_bp4d", "--data.root", "/data/BP4D"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainer.max_epoch", "1"], "nearest: --trainer.max_epochs"),
        (["--trainer.max_epoch=1"], "nearest: --trainer.max_epochs"),
        (["--model.k", "4"], "given as --model.options.k VALUE"),
        (["--model.nam", "sacl"], "nearest: --model.name"),
        (["--data.batchsize", "3"], "nearest: --data.batch_size"),
        (["--nothing", "3"], "--nothing 3; see --help"),
    ],
)
def test_an_unknown_option_is_not_taken_for_another(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match="unrecognized arguments") as raised:
        parse("fit", [*BASE, *arguments])
    assert message in str(raised.value)


@pytest.mark.parametrize("command", ["fit", "test"])
def test_a_run_without_a_recipe_lists_the_recipes(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command]) == 2
    stderr = capsys.readouterr().err
    assert "error: --config must be given" in stderr and "me_graphau_bp4d" in stderr
    assert stderr.count("\n") == 1


def test_callbacks_and_logger_come_from_the_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "run.yaml"
    recipe.write_text(
        "model: {name: sacl}\n"
        "trainer: {compile: true, precision: bf16-mixed, deterministic: true}\n"
        "checkpoint: {every_steps: 100}\n"
        "early_stopping: 3\n"
        "logger: {class_path: WandbLogger, init_args: {project: aus}}\n"
        "callbacks:\n"
        "- class_path: LearningRateMonitor\n"
        "  init_args: {logging_interval: step}\n"
    )
    options, _, text = parse("fit", ["--config", str(recipe), "--data.sampler", "balanced"])
    assert options.callbacks == [
        {"class_path": "LearningRateMonitor", "init_args": {"logging_interval": "step"}}
    ]
    assert options.logger == {"class_path": "WandbLogger", "init_args": {"project": "aus"}}
    assert (options.early_stopping, options.checkpoint.every_steps) == (3, 100)
    assert options.trainer.compile and options.data.sampler == "balanced"
    saved = tmp_path / "saved.yaml"
    saved.write_text(text)
    assert parse("fit", ["--config", str(saved)])[0] == options
