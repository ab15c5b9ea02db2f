"""Modules that an import or a command must not load, in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

REPORT = """
import json, sys
{code}
print("\\n" + json.dumps(sorted(sys.modules)))
"""
HELP = """
from aurel.cli.main import main
try:
    main(["--help"])
except SystemExit as stop:
    assert stop.code == 0
"""
TABLES_WITHOUT_SCIPY = """
from aurel.tables import AUTable
assert AUTable.read
assert not sys.modules.keys() & {"scipy", "pandas", "matplotlib"}
sys.modules["scipy"] = sys.modules["scipy.special"] = None
import aurel.tables
for name in ("find_relations", "ising_couplings"):
    try:
        getattr(aurel.tables, name)
    except ImportError as error:
        assert "pip install 'aurel-au[tables]'" in str(error), error
    else:
        raise AssertionError(name)
"""
METRICS_WITHOUT_TORCHMETRICS = """
import aurel.metrics
assert "AUF1" in dir(aurel.metrics)
assert not sys.modules.keys() & {"matplotlib", "torchmetrics", "lightning"}
sys.modules["torchmetrics"] = None
assert aurel.metrics.roc_auc and aurel.metrics.icc_3_1
for name in aurel.metrics._CLASSES:
    try:
        getattr(aurel.metrics, name)
    except ImportError as error:
        assert "pip install 'aurel-au[train]'" in str(error), error
    else:
        raise AssertionError(name)
"""


def loaded_by(code: str) -> set[str]:
    """Return the modules that a fresh interpreter holds after `code`."""
    command = [sys.executable, "-c", REPORT.format(code=code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_help_does_not_import_torch() -> None:
    loaded = loaded_by(HELP)
    assert "aurel.cli.fit" in loaded
    assert not loaded & {"torch", "numpy", "lightning"}


def test_tables_are_read_without_scipy_and_statistics_name_the_extra() -> None:
    assert "aurel.tables" in loaded_by(TABLES_WITHOUT_SCIPY)


def test_metrics_do_not_import_torchmetrics_before_their_use_and_name_the_extra() -> None:
    assert "aurel.metrics" in loaded_by(METRICS_WITHOUT_TORCHMETRICS)


@pytest.mark.parametrize("name", ["use_backend", "__version__"])
def test_the_package_has_its_public_names(name: str) -> None:
    import aurel

    assert name in aurel.__all__ and getattr(aurel, name)


def test_a_missing_name_is_in_the_error() -> None:
    import aurel

    with pytest.raises(AttributeError, match="module 'aurel' has no attribute 'use_backends'"):
        aurel.use_backends  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'AUF2' from 'aurel.metrics'"):
        from aurel.metrics import AUF2  # type: ignore[attr-defined] # noqa: F401
