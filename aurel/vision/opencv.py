"""Import OpenCV, or raise an error that names the extra to install."""

from __future__ import annotations

from typing import Any

try:
    import cv2 as _cv2
except ImportError as error:
    if "libGL" in str(error) or "libgthread" in str(error):
        # The build with windows was installed over the one without, in the same folder.
        raise ImportError(
            f"OpenCV cannot be imported ({error}); install its build without windows again: "
            "pip install --force-reinstall --no-deps 'opencv-python-headless<5'"
        ) from error
    raise ImportError("pictures and videos need OpenCV: pip install 'aurel-au[vision]'") from error

# OpenCV's stubs have no pixel types, so arrays of any dtype would fail type checks.
cv2: Any = _cv2
