"""Contact sheet: small pictures in rows, each with the true class and the one that was answered."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont

from googlenet.images.decoding import decode_rgb
from pipelines.report.drawing import COLOURS

COLUMNS = 4
PICTURE_PX, FRAME_PX, LINE_PX, FONT_PX, GAP_PX = 104, 4, 16, 12, 8
TILE_PX = PICTURE_PX + 2 * FRAME_PX
RIGHT, WRONG = COLOURS[0], COLOURS[5]
INK, PAPER, GROUND = "#222222", "#ffffff", "#eeeeee"


@dataclass(frozen=True)
class Tile:
    """A picture, its true class, the class that was answered, and the probability of that answer."""

    picture: Image.Image
    truth: str
    answer: str
    probability: float


def small_picture(data: bytes) -> Image.Image:
    """Return an encoded image as a small picture."""
    picture = Image.fromarray(decode_rgb(data))
    picture.thumbnail((PICTURE_PX, PICTURE_PX), Image.Resampling.LANCZOS)
    return picture


def contact_sheet(tiles: Sequence[Tile]) -> Image.Image:
    """Return the pictures in rows; frames and captions of right answers are blue, those of wrong ones orange."""
    columns, rows = min(COLUMNS, len(tiles)), -(-len(tiles) // COLUMNS)
    step_x, step_y = TILE_PX + GAP_PX, TILE_PX + 2 * LINE_PX + GAP_PX
    sheet = Image.new("RGB", (columns * step_x + GAP_PX, rows * step_y + GAP_PX), PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, tile in enumerate(tiles):
        row, column = divmod(place, COLUMNS)
        left, top = GAP_PX + column * step_x, GAP_PX + row * step_y
        colour = RIGHT if tile.answer == tile.truth else WRONG
        draw.rectangle((left, top, left + TILE_PX - 1, top + TILE_PX - 1), GROUND, colour, FRAME_PX)
        width, height = tile.picture.size
        sheet.paste(tile.picture, (left + (TILE_PX - width) // 2, top + (TILE_PX - height) // 2))
        truth = _fitting(draw, f"truth: {tile.truth}", "")
        answer = _fitting(draw, f"answer: {tile.answer}", f", {100 * tile.probability:.0f} %")
        draw.text((left, top + TILE_PX), truth, INK, _font())
        draw.text((left, top + TILE_PX + LINE_PX), answer, colour, _font())
    return sheet


def _fitting(draw: ImageDraw.ImageDraw, text: str, end: str) -> str:
    """Return a text in one line that is cut where the tile ends, with ``end`` after it."""
    text = unicodedata.normalize("NFC", " ".join(text.splitlines()))
    if draw.textlength(text + end, _font()) <= TILE_PX:
        return text + end
    while text and draw.textlength(f"{text}...{end}", _font()) > TILE_PX:
        text = text[:-1]
    return f"{text}...{end}"


@cache
def _font() -> Any:
    # Pillow's own font has hardly more than ASCII. This one has Latin, Greek and Cyrillic letters.
    return ImageFont.truetype(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), FONT_PX)
