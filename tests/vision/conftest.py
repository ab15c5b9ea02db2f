"""Fixtures that write small videos."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


def _write_video(
    path: Path, frames: int, size: tuple[int, int] = (64, 48), fps: float = 20
) -> Path:
    """Write a video whose left half is white and whose frames grow lighter on the right."""
    from aurel.vision.outputs import VideoWriter

    with VideoWriter(path, size, fps) as writer:
        for number in range(frames):
            image = np.full((size[1], size[0], 3), 8 * number % 200, dtype=np.uint8)
            image[:, : size[0] // 2] = 255
            writer.write(image)
    return path


def _turn_a_quarter(path: Path) -> Path:
    """Set the rotation in an MP4 file to 90 degrees clockwise."""
    content = bytearray(path.read_bytes())
    matrix = content.find(b"tkhd") + 4 + 40
    content[matrix : matrix + 36] = struct.pack(
        ">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0x10000 * 48, 0, 0x40000000
    )
    path.write_bytes(content)
    return path


@pytest.fixture
def write_video() -> Callable[..., Path]:
    return _write_video


@pytest.fixture
def turn_a_quarter() -> Callable[[Path], Path]:
    return _turn_a_quarter
