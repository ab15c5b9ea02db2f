"""A check that no other distribution has replaced files of this package.

The distribution `aurel` of the package index, a library for numerical relativity, installs into
the same folder as this one, `aurel-au`. Installed after it, `aurel` replaces `aurel/__init__.py`;
uninstalled, it removes the file. Subpackages therefore check, when they are imported, that
`aurel/__init__.py` is that of `aurel-au`.
"""

from __future__ import annotations

import os
import sys
import warnings

DISTRIBUTION = "aurel-au"
REPAIR = (
    "keep them in separate environments; to repair this one: pip uninstall aurel, "
    f"then pip install --force-reinstall --no-deps {DISTRIBUTION}"
)


def check_owner() -> None:
    """Check that `aurel/__init__.py` is that of `aurel-au`.

    Raises:
        ImportError: the distribution `aurel` has replaced or removed it.
    """
    package = sys.modules["aurel"]
    if getattr(package, "__distribution__", None) == DISTRIBUTION:
        return
    change = "removed" if getattr(package, "__file__", None) is None else "replaced"
    raise ImportError(
        f"aurel/__init__.py of {DISTRIBUTION} was {change} by another distribution, "
        f"'aurel'; {REPAIR}"
    )


def warn_of_other() -> None:
    """Warn where the distribution `aurel` is installed beside `aurel-au`.

    The folder that holds the package is listed, which takes a tenth of a millisecond; metadata of
    distributions is not read.
    """
    site_packages = os.path.dirname(os.path.dirname(__file__))
    try:
        names = os.listdir(site_packages)
    except OSError:  # imported from an archive
        return
    if any(name.startswith("aurel-") and name.endswith(".dist-info") for name in names):
        warnings.warn(
            f"another distribution, 'aurel', shares the folder of {DISTRIBUTION}, and its removal "
            f"would remove aurel/__init__.py; {REPAIR}",
            stacklevel=3,
        )
