"""
Search for good options of a run
================================

`Optuna <https://optuna.org>`_ proposes a learning rate and a sampler, a short run on the synthetic
faces scores them on held-out people, and a run that falls behind the median of the others is
stopped early.
"""

import tempfile

import optuna
from lightning.pytorch import Callback

from aurel.data.synthetic.options import SyntheticOptions
from aurel.training.options import (
    DataOptions,
    ModelOptions,
    OptimizerOptions,
    RunOptions,
    TrainerOptions,
)
from aurel.training.run import fit


class Report(Callback):
    def __init__(self, trial):
        self.trial = trial

    def on_validation_end(self, trainer, task):
        self.trial.report(float(trainer.callback_metrics[task.monitor]), trainer.current_epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def objective(trial):
    faces = SyntheticOptions(subjects=12, per_subject=8, size=36)
    data = DataOptions("synthetic", batch_size=16, num_workers=0, resize=36, crop=32)
    data.synthetic, data.validation = faces, 0.25
    data.sampler = trial.suggest_categorical("sampler", ["shuffle", "balanced"])
    rate = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    trainer = TrainerOptions(max_epochs=3, accelerator="cpu", devices=1)
    model = ModelOptions("me_graphau_stage1", backbone="test_resnet", options={"channels": 16})
    with tempfile.TemporaryDirectory() as out:
        run = RunOptions(model, data, {}, OptimizerOptions(lr=rate), trainer, out=out)
        task = fit(run, callbacks=[Report(trial)])
    return task.scores["mean"]["f1"]


pruner = optuna.pruners.MedianPruner(n_startup_trials=2)
study = optuna.create_study(
    direction="maximize", sampler=optuna.samplers.TPESampler(seed=0), pruner=pruner
)
study.optimize(objective, n_trials=4)
print(f"best: F1 {study.best_value:.3f} with {study.best_params}")
