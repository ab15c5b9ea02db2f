"""The terms of a license are shown once, and agreed to where the owners ask for it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from aurel.weights import agreement
from aurel.weights.agreement import require_agreement
from aurel.weights.entry import License, Weights

ASKS = License("lab", "research only", "No commercial use.", agreement=True)


def entry(terms: License = ASKS) -> Weights:
    return Weights(name="net", file="n", urls=("http://x",), source="", license=terms)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUREL_WEIGHTS", str(tmp_path))
    monkeypatch.delenv("AUREL_AGREE", raising=False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_the_error_names_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="get net --agree.* agree=True .*AUREL_AGREE=1"):
        require_agreement(entry())
    assert "No commercial use." in capsys.readouterr().err


@pytest.mark.parametrize("way", ["argument", "environment"])
def test_agreement_is_recorded(
    way: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "environment":
        monkeypatch.setenv("AUREL_AGREE", "1")
    require_agreement(entry(), agree=way == "argument")
    assert "No commercial use." in capsys.readouterr().err
    monkeypatch.delenv("AUREL_AGREE", raising=False)
    require_agreement(entry())
    assert capsys.readouterr().err == ""
    other = License("lab", "research only", "Nor any other use.", agreement=True)
    with pytest.raises(ValueError, match="must be agreed to"):
        require_agreement(entry(other))


@pytest.mark.parametrize(("answer", "agreed"), [("y\n", True), ("n\n", False), ("", False)])
def test_a_question_on_a_terminal(
    answer: str, agreed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement.sys, "stdin", Terminal(answer))
    monkeypatch.setattr(agreement.sys, "stderr", Terminal())
    if agreed:
        require_agreement(entry())
    else:
        with pytest.raises(ValueError, match="got no"):
            require_agreement(entry())


def test_a_permissive_license_is_shown_once_without_a_question(
    capsys: pytest.CaptureFixture[str],
) -> None:
    mit = License("mit", "MIT", "https://example.org", agreement=False)
    require_agreement(entry(mit))
    assert "MIT" in capsys.readouterr().err
    require_agreement(entry(mit))
    assert capsys.readouterr().err == ""
