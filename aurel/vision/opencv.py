"""OpenCV, or a word on how to get it."""

from __future__ import annotations

from typing import Any

try:
    import cv2 as _cv2
except ImportError as error:
    raise ImportError("pictures and videos need OpenCV: pip install 'aurel-au[vision]'") from error

# Its stubs know no pixel types: an array of anything would fit nowhere.
cv2: Any = _cv2
