"""Import PyAV without messages of its decoders, or raise an error that names the extra."""

from __future__ import annotations

from typing import Any

try:
    import av as _av
except ImportError as error:
    raise ImportError("videos need PyAV: pip install 'aurel-au[vision]'") from error

_av.logging.set_level(_av.logging.PANIC)

# PyAV's types follow its version, so checks would depend on it.
av: Any = _av
