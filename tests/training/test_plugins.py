"""Callbacks and loggers from a recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_runs import options, same, weights
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger

from aurel.training.plugins import make_callbacks, make_logger
from aurel.training.run import checkpoint_file, fit, run_folder

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning")


def test_classes_of_lightning_need_no_module(tmp_path: Path) -> None:
    made = make_callbacks(
        [
            {"class_path": "LearningRateMonitor", "init_args": {"logging_interval": "step"}},
            {
                "class_path": "lightning.pytorch.callbacks.EarlyStopping",
                "init_args": {"monitor": "val/f1", "mode": "max"},
            },
        ]
    )
    assert isinstance(made[0], LearningRateMonitor) and made[0].logging_interval == "step"
    assert isinstance(made[1], EarlyStopping) and made[1].mode == "max"
    logger = make_logger({"class_path": "CSVLogger", "init_args": {"name": "x"}}, tmp_path)
    assert isinstance(logger, CSVLogger) and str(tmp_path) in logger.log_dir
    assert make_logger("none", tmp_path) is False


@pytest.mark.parametrize(
    ("entry", "error", "message"),
    [
        ({"class_path": "EarlyStoping"}, ValueError, r"callbacks\[0\].class_path must be the name"),
        ({"class_path": "nopackage.Thing"}, ImportError, "not installed: pip install nopackage"),
        ({"class_path": "collections.Counter"}, ValueError, "must be a Callback of Lightning"),
        ({"class_path": "EarlyStopping"}, ValueError, "EarlyStopping cannot be made: .*monitor"),
        ({"class_path": 3}, ValueError, "must be the name of a class, got 3"),
        ({"class": "EarlyStopping"}, ValueError, "must have class_path and perhaps init_args"),
        ({"class_path": "Timer", "args": {}}, ValueError, "must have class_path and perhaps"),
    ],
)
def test_a_bad_callback_is_one_clear_error(
    entry: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_callbacks([entry])


@pytest.mark.parametrize("name", ["WandbLogger", "MLFlowLogger", "CometLogger"])
def test_a_logger_of_a_package_that_is_missing_names_it(name: str, tmp_path: Path) -> None:
    package = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow", "CometLogger": "comet"}[name]
    with pytest.raises(ImportError, match=f"logger .{name}. needs .* not installed: .*{package}"):
        make_logger({"class_path": name}, tmp_path)


def test_an_unknown_logger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="logger must be tensorboard, csv, none or a class_path"):
        make_logger("wandb", tmp_path)


def test_early_stopping_by_one_line(stripes: Path, tmp_path: Path) -> None:
    run = options(stripes, tmp_path / "run", trainer__max_epochs=9, optimizer__lr=0.0)
    run = replace(run, early_stopping=2, logger="csv")
    fit(run)
    last = torch.load(checkpoint_file(run_folder(run), "last"), weights_only=True)
    assert last["epoch"] == 2
    assert list((tmp_path / "run").rglob("metrics.csv"))
    assert not (tmp_path / "run" / "tensorboard").exists()
    with pytest.raises(ValueError, match="early_stopping must be at least 1"):
        fit(replace(run, early_stopping=0, out=str(tmp_path / "a")))
    alone = options(stripes, tmp_path / "b", data__validation=0.0, early_stopping=1)
    with pytest.raises(ValueError, match="null for a run without validation data, got 1"):
        fit(alone)


def test_a_callback_of_the_recipe_takes_part(stripes: Path, tmp_path: Path) -> None:
    monitor = {"class_path": "LearningRateMonitor", "init_args": {"logging_interval": "epoch"}}
    run = options(stripes, tmp_path / "run", trainer__max_epochs=2, logger="csv")
    fit(replace(run, callbacks=[monitor]))
    table = next((tmp_path / "run").rglob("metrics.csv")).read_text()
    assert "lr-" in table


def test_a_compiled_model_trains_as_one_that_is_not(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = torch.compile
    used: list[Any] = []

    def eager(*args: Any, **more: Any) -> Any:
        used.append(args)
        return compiled(*args, **{**more, "backend": "eager"})

    monkeypatch.setattr(torch, "compile", eager)
    runs = [
        options(stripes, tmp_path / str(number), trainer__max_epochs=1, trainer__compile=number)
        for number in (False, True)
    ]
    for run in runs:
        fit(run)
    assert used
    files = [checkpoint_file(run_folder(run), "last") for run in runs]
    assert same(*map(weights, files))


@pytest.mark.parametrize(
    ("timeout", "strategy", "message"),
    [(0.0, "ddp", "above 0 seconds"), (5.0, "auto", "null unless strategy is ddp")],
)
def test_a_timeout_is_for_several_processes(
    timeout: float, strategy: str, message: str, stripes: Path, tmp_path: Path
) -> None:
    run = options(stripes, tmp_path / "run")
    run.trainer.timeout, run.trainer.strategy = timeout, strategy
    with pytest.raises(ValueError, match=f"trainer.timeout must be {message}"):
        fit(run)
