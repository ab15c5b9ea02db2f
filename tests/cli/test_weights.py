"""`aurel weights`: the list, downloads, paths, and errors in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from aurel.cli.main import main
from aurel.weights import list_weights, path


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUREL_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("AUREL_OFFLINE", "1")
    monkeypatch.delenv("AUREL_AGREE", raising=False)


def test_the_list_has_every_name_and_license(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in list_weights())
    assert "research only" in out and "DISFA, mean F1 0.59" in " ".join(out.split())
    assert main(["weights", "list", "open_*"]) == 0
    assert "openface3" not in capsys.readouterr().out
    assert main(["weights", "list", "nothing*"]) == 2


def test_get_and_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "path", "openface3"]) == 2
    assert "aurel weights get openface3" in capsys.readouterr().err
    assert main(["weights", "get", "openface3"]) == 2
    assert "--agree" in capsys.readouterr().err
    assert main(["weights", "get", "openface3", "--agree"]) == 2
    assert "offline mode" in capsys.readouterr().err
    path("openface3").write_bytes(b"weights")
    for action in ("path", "get"):
        assert main(["weights", action, "openface3"]) == 0
        assert capsys.readouterr().out.strip() == str(path("openface3"))


def test_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "get", "openface2"]) == 2
    assert "nearest: openface3" in capsys.readouterr().err
