"""Arguments, messages and exit codes of the command line."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from aurel.cli import main as cli
from aurel.cli.errors import guarded, one_line
from aurel.cli.main import COMMANDS, build_parser, main


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_help(command: str) -> None:
    assert command in build_parser().format_help()


def test_building_the_parser_imports_nothing_heavy() -> None:
    code = (
        "import sys; from aurel.cli.main import build_parser; build_parser();"
        "heavy = {'lightning', 'jsonargparse', 'rich', 'timm', 'cv2', 'matplotlib'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("k must be\n  in 1..4"), 2, "aurel: error: k must be in 1..4\n"),
        (FileNotFoundError(2, "No such file", "x.yaml"), 2, "x.yaml"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left"),
        (ImportError("needs: pip install 'aurel-au[train]'"), 2, "aurel-au[train]"),
        (KeyboardInterrupt(), 130, "aurel: interrupted\n"),
    ],
)
def test_errors_become_one_line_and_a_code(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> int:
        raise error

    assert guarded(fails) == code
    stderr = capsys.readouterr().err
    assert message in stderr and stderr.count("\n") == 1 and stderr.startswith("aurel: ")


def test_an_unexpected_error_keeps_its_traceback() -> None:
    def fails() -> int:
        raise AssertionError("a bug")

    with pytest.raises(AssertionError):
        guarded(fails)

    def bad() -> int:
        raise ValueError("shown whole with --debug")

    with pytest.raises(ValueError, match="shown whole"):
        guarded(bad, debug=True)
    assert one_line(ValueError()) == "ValueError"


def test_a_long_list_is_cut() -> None:
    line = one_line(ValueError("missing:\n" + "head.weight\n" * 500))
    assert line.startswith("missing: head.weight head.weight") and len(line) < 1100
    assert line.endswith("... (aurel --debug shows the rest)")


def test_unknown_commands_and_options_are_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["dance"], ["models", "--dance"], []):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
    assert "unrecognized arguments: --dance" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit"], "--config must be given, a recipe's name or file"),
        (["fit", "--model.name", "sacl", "--data.rot", "/x"], "unrecognized arguments: --data.rot"),
        (["fit", "--model.name", "sacl", "--data.fold", "one"], "data.fold"),
        (["test", "--model.name", "sacl", "--ckpt", "a.ckpt"], "unrecognized arguments: --ckpt"),
        (["fit", "--model.name", "sacl", "--data.select_on", "luck"], "data.select_on"),
        (["fit", "--model.name", "sacl", "--trainer.precision", "8"], "trainer.precision"),
        (["fit", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["fit", "--model.name", "sacl"], "data.root must be the folder of BP4D, got None"),
        (
            ["fit", "--model.name", "sacl", "--data.root", "/no/such"],
            "folder /no/such does not exist",
        ),
        (["test", "--model.name", "sacl", "--out", "/no/run"], "no checkpoint /no/run/checkpoints"),
    ],
)
def test_bad_options_are_one_line_and_code_two(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith("aurel: error: ") and stderr.count("\n") == 1
    assert message in stderr
    assert not list(tmp_path.iterdir())


def test_an_unknown_key_in_a_recipe_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model:\n  name: sacl\ndata:\n  fold: 1\n  folds: 2\n")
    assert main(["fit", "--config", str(recipe)]) == 2
    assert "folds" in capsys.readouterr().err


def test_ctrl_c_says_where_the_last_checkpoint_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from aurel.cli import fit

    last = tmp_path / "checkpoints" / "last.ckpt"

    def stopped(args: object) -> int:
        raise fit.Interrupted(fit.how_to_continue(tmp_path))

    monkeypatch.setattr(fit, "run", stopped)
    assert cli.main(["fit"]) == 130
    assert "before the first checkpoint" in capsys.readouterr().err
    last.parent.mkdir()
    last.touch()
    assert cli.main(["fit"]) == 130
    assert f"the last checkpoint is {last}" in capsys.readouterr().err
