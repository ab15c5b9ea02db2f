"""Layout of annotated pictures, at several resolutions and numbers of AUs and faces."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageColor

pytest.importorskip("cv2")

from aurel.facs import AUSet
from aurel.vision.annotate import BACKGROUND, PRESENT, Annotator
from aurel.vision.face_detector import Face
from aurel.vision.face_predictor import FacePrediction

SIZES = [(64, 64), (320, 240), (640, 360), (360, 640), (1920, 1080), (4000, 300), (300, 4000)]


def prediction(count: int, prob: float = 0.7, face: Face | None = None) -> FacePrediction:
    probs = np.full(count, prob)
    return FacePrediction(face or Face(10, 10, 30, 30), probs, probs >= 0.5)


def blank(width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), 128, dtype=np.uint8)


def amount(image: np.ndarray, color: str) -> int:
    return int((np.abs(image.astype(int) - ImageColor.getrgb(color)).max(2) < 3).sum())


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("aus", ["BP4D", "DISFA", "OpenGraphAU", (12,), "unnamed"])
@pytest.mark.parametrize("faces", [0, 1, 7, 60])
def test_nothing_is_cut_off(size: tuple[int, int], aus: str, faces: int) -> None:
    names = (AUSet.unnamed(5) if aus == "unnamed" else AUSet.of(aus)).names
    annotator = Annotator(names, *size, faces, threshold=0.5)
    caption = "a_photograph_with_a_very_long_name_from_a_data_set_0000123.jpg"
    image = annotator(blank(*size), [prediction(len(names))] * faces, caption)
    width, height = annotator.size
    assert image.shape == (height, width, 3)
    assert width % 2 == 0 and height % 2 == 0 and 580 <= height <= 1160
    panel = image[:, annotator.picture_size[0] :]
    background = ImageColor.getrgb(BACKGROUND)
    for edge in (panel[:3], panel[-3:], panel[:, -3:]):
        assert (np.abs(edge.astype(int) - background) < 3).all()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_text_is_never_smaller_than_13_pixels(size: tuple[int, int]) -> None:
    assert Annotator(AUSet.of("BP4D").names, *size, 1, threshold=0.5).font.size >= 13


def test_bars_are_as_long_as_the_probability() -> None:
    annotator = Annotator(("AU12",), 640, 360, 1, threshold=0.5)

    def drawn(prob: float) -> int:
        return amount(annotator(blank(640, 360), [prediction(1, prob)], ""), PRESENT)

    full, part = drawn(1.0), drawn(0.6)
    assert part == pytest.approx(0.6 * full, rel=0.05)
    assert drawn(0.4) == 0


def test_a_probability_that_is_none_is_drawn_as_none() -> None:
    annotator = Annotator(("AU12",), 640, 360, 1, threshold=0.5)
    image = annotator(blank(640, 360), [prediction(1, float("nan"))], "")
    assert amount(image, PRESENT) == 0


def test_a_remark_stands_on_the_lower_edge_of_the_picture() -> None:
    plain = Annotator(("AU12",), 640, 360, 1, threshold=0.5)
    remarked = Annotator(("AU12",), 640, 360, 1, 0.5, "trained on synthetic faces only")
    changed = remarked(blank(640, 360), [], "") != plain(blank(640, 360), [], "")
    rows, columns = changed.any(2).nonzero()
    assert rows.min() > 0.8 * changed.shape[0] and columns.max() < plain.picture_size[0]


def test_the_box_is_where_the_face_is_and_its_inside_stays_visible() -> None:
    annotator = Annotator(("AU12",), 640, 360, 1, threshold=0.5)
    face = Face(200, 100, 100, 100)
    plain = annotator(blank(640, 360), [], "")
    changed = annotator(blank(640, 360), [prediction(1, face=face)], "") != plain
    rows, columns = changed[:, : annotator.picture_size[0]].any(2).nonzero()
    scale = annotator.scale
    assert columns.min() == pytest.approx(200 * scale, abs=4)
    assert columns.max() == pytest.approx(300 * scale, abs=4)
    assert rows.max() == pytest.approx(200 * scale, abs=4)
    inside = changed[
        round(105 * scale) : round(195 * scale), round(205 * scale) : round(295 * scale)
    ]
    assert not inside.any()


def test_faces_beyond_the_capacity_are_counted_in_the_caption() -> None:
    annotator = Annotator(AUSet.of("BP4D").names, 640, 360, 1, threshold=0.5)
    assert annotator.capacity == 2
    two = annotator(blank(640, 360), [prediction(12)] * 2, "")
    three = annotator(blank(640, 360), [prediction(12)] * 3, "")
    panel = slice(annotator.picture_size[0], None)
    caption = round(1.5 * annotator.line)
    assert (two[:caption, panel] != three[:caption, panel]).any()
    assert (two[caption:, panel] == three[caption:, panel]).all()
