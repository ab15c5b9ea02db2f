"""Draw predictions: a box around each face, and beside the picture a bar for each AU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from aurel.vision.face_detector import Face
from aurel.vision.face_predictor import FacePrediction
from aurel.vision.image import RGBImage, check_rgb
from aurel.vision.opencv import cv2

LINES = 30
"""Height of the panel in lines of text, at any resolution: a caption and two faces of 12 AUs."""
FIRST_LINE = 1.6

MIN_HEIGHT, MAX_HEIGHT, MAX_WIDTH = 580, 1160, 1920
MAX_COLUMNS = 4

# The palette of Okabe and Ito, whose colors color-blind readers can distinguish.
FACE_COLORS = ("#56B4E9", "#F0E442", "#009E73", "#CC79A7", "#D55E00", "#0072B2")
PRESENT, ABSENT = "#E69F00", "#7C8591"
BACKGROUND, TRACK, BRIGHT, DIM = "#15181C", "#30353C", "#FFFFFF", "#AEB5BD"


class Annotator:
    """Draws predictions on pictures of one size; all results have one size, as videos require.

    The picture is scaled so that the text beside it is legible: to a height from 580 to 1160 pixels
    and a width of at most 1920 pixels. The size of the text is proportional to the height.

    Args:
        names: names of the AUs.
        width, height: size of the pictures.
        faces: number of faces to reserve space for; of other faces only the box is drawn.
        threshold: position of the mark on the bars; one number, or one for each AU.
        remark: text on the lower edge of every picture.
    """

    def __init__(
        self,
        names: Sequence[str],
        width: int,
        height: int,
        faces: int,
        threshold: float | NDArray[np.floating],
        remark: str = "",
    ) -> None:
        self.remark = remark
        self.names = tuple(names)
        marks = np.broadcast_to(threshold, len(self.names)).tolist()
        self.thresholds = dict(zip(self.names, marks, strict=True))
        self.canvas_height = int(np.clip(height, MIN_HEIGHT, MAX_HEIGHT)) // 2 * 2
        self.scale = min(self.canvas_height / height, MAX_WIDTH / width)
        self.picture_size = (
            max(1, round(width * self.scale)),
            max(1, round(height * self.scale)),
        )
        self.line = self.canvas_height / LINES
        self.font = ImageFont.load_default(round(0.72 * self.line))
        self.name_width = max(self.font.getlength(name) for name in self.names)
        self.column_width = self.name_width + 8.5 * self.line

        lines = int(LINES - FIRST_LINE)
        self.columns_per_face = -(-(len(self.names) + 1) // (lines - 1))
        self.faces_per_column = max(1, lines // (len(self.names) + 2))
        columns = -(-faces // self.faces_per_column) * self.columns_per_face
        most = max(MAX_COLUMNS, self.columns_per_face) // self.columns_per_face
        columns = max(self.columns_per_face, min(columns, most * self.columns_per_face))
        self.capacity = columns // self.columns_per_face * self.faces_per_column
        panel_width = round(columns * self.column_width + 0.5 * self.line)
        self.size = ((self.picture_size[0] + panel_width + 1) // 2 * 2, self.canvas_height)
        """(width, height) of the results, both even, as video codecs require."""

    def __call__(
        self, image: RGBImage, predictions: Sequence[FacePrediction], caption: str
    ) -> RGBImage:
        """Return the picture with its predictions, (height, width, 3) uint8 RGB of `size`."""
        check_rgb(image)
        canvas = Image.new("RGB", self.size, BACKGROUND)
        kind = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_CUBIC
        picture = Image.fromarray(cv2.resize(image, self.picture_size, interpolation=kind))
        top = (self.canvas_height - self.picture_size[1]) // 2
        canvas.paste(picture, (0, top))
        draw = ImageDraw.Draw(canvas)
        for number, prediction in enumerate(predictions):
            self._draw_box(draw, prediction.face, number, top)
        self._draw_caption(draw, len(predictions), caption)
        if self.remark:
            self._draw_remark(draw, top + self.picture_size[1])
        for number, prediction in enumerate(predictions[: self.capacity]):
            self._draw_bars(draw, prediction, number)
        return np.asarray(canvas)

    def _draw_box(self, draw: ImageDraw.ImageDraw, face: Face, number: int, top: int) -> None:
        color = FACE_COLORS[number % len(FACE_COLORS)]
        corners = face.corners() * self.scale + (0, top)
        thick = max(2, round(self.line / 8))
        draw.line(
            [tuple(corner) for corner in (*corners, corners[0], corners[1])],
            fill=color,
            width=thick,
            joint="curve",
        )
        badge = 1.25 * self.line
        highest = corners[corners[:, 1].argmin()]
        x = float(np.clip(highest[0] - thick / 2, 0, max(0.0, self.picture_size[0] - badge)))
        y = float(np.clip(highest[1] - badge, top, max(top, top + self.picture_size[1] - badge)))
        self._draw_badge(draw, x, y, badge, number)

    def _draw_badge(
        self, draw: ImageDraw.ImageDraw, x: float, y: float, side: float, number: int
    ) -> None:
        color = FACE_COLORS[number % len(FACE_COLORS)]
        text = str(number)
        width = max(side, self.font.getlength(text) + 0.4 * self.line)
        draw.rectangle((x, y, x + width, y + side), fill=color)
        draw.text((x + width / 2, y + side / 2), text, fill="black", font=self.font, anchor="mm")

    def _draw_caption(self, draw: ImageDraw.ImageDraw, faces: int, caption: str) -> None:
        note = "" if faces else "no face found"
        if faces > self.capacity:
            note = f"+{faces - self.capacity} more"
        left = self.picture_size[0] + 0.5 * self.line
        space = self.size[0] - left - 0.5 * self.line
        gap = "   " if note and caption else ""
        caption = self._shortened(caption, space - self.font.getlength(gap + note))
        draw.text(
            (left, 0.75 * self.line), caption + gap + note, fill=BRIGHT, font=self.font, anchor="lm"
        )

    def _draw_remark(self, draw: ImageDraw.ImageDraw, bottom: float) -> None:
        text = self._shortened(self.remark, self.picture_size[0] - self.line)
        top = bottom - 1.3 * self.line
        width = self.font.getlength(text) + self.line
        draw.rectangle((0, top, width, bottom), fill=BACKGROUND)
        middle = top + 0.65 * self.line
        draw.text((0.5 * self.line, middle), text, fill=PRESENT, font=self.font, anchor="lm")

    def _shortened(self, text: str, space: float) -> str:
        """Return the text, without its middle if it is wider than `space` pixels."""
        kept = len(text)
        short = text
        while kept > 0 and self.font.getlength(short) > space:
            kept -= 1
            short = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
        return short

    def _draw_bars(
        self, draw: ImageDraw.ImageDraw, prediction: FacePrediction, number: int
    ) -> None:
        column, position = divmod(number, self.faces_per_column)
        first_column = column * self.columns_per_face
        first_line = FIRST_LINE + position * (len(self.names) + 2)
        per_column = -(-len(self.names) // self.columns_per_face)
        left = self._column_left(first_column)
        self._draw_badge(draw, left, first_line * self.line, 0.95 * self.line, number)
        draw.text(
            (left + 1.6 * self.line, (first_line + 0.5) * self.line),
            f"face {number}",
            fill=BRIGHT,
            font=self.font,
            anchor="lm",
        )
        for index, name in enumerate(self.names):
            step, row = divmod(index, per_column)
            self._draw_bar(
                draw,
                (self._column_left(first_column + step), (first_line + 1 + row) * self.line),
                name,
                float(prediction.probs[index]),
                bool(prediction.present[index]),
            )

    def _column_left(self, column: int) -> float:
        return self.picture_size[0] + 0.5 * self.line + column * self.column_width

    def _draw_bar(
        self,
        draw: ImageDraw.ImageDraw,
        corner: tuple[float, float],
        name: str,
        prob: float,
        present: bool,
    ) -> None:
        left, top = corner
        middle = top + self.line / 2
        text = BRIGHT if present else DIM
        draw.text((left, middle), name, fill=text, font=self.font, anchor="lm")
        start = left + self.name_width + 0.5 * self.line
        length = 5.0 * self.line
        upper, lower = top + 0.24 * self.line, top + 0.76 * self.line
        draw.rectangle((start, upper, start + length, lower), fill=TRACK)
        filled = length * float(np.clip(np.nan_to_num(prob), 0, 1))
        if filled >= 1:
            draw.rectangle(
                (start, upper, start + filled, lower), fill=PRESENT if present else ABSENT
            )
        mark = start + length * self.thresholds[name]
        draw.line(
            (mark, upper - 2, mark, lower + 2), fill=BRIGHT, width=max(1, round(self.line / 20))
        )
        draw.text(
            (start + length + 0.4 * self.line, middle),
            f"{prob:.2f}",
            fill=text,
            font=self.font,
            anchor="lm",
        )
