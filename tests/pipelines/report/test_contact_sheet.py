"""Contact sheets: right and wrong answers differ in colour, and long names end within their tile."""

import numpy as np
from PIL import Image, ImageColor

from pipelines.report.contact_sheet import GAP_PX, RIGHT, TILE_PX, WRONG, Tile, contact_sheet

PICTURE = Image.new("RGB", (60, 80), "white")


def colours(tiles: list[Tile]) -> set[tuple[int, ...]]:
    return {tuple(pixel) for row in np.asarray(contact_sheet(tiles)) for pixel in row}


def test_wrong_answers_have_another_colour_than_right_ones() -> None:
    right, wrong = (ImageColor.getrgb(colour) for colour in (RIGHT, WRONG))
    assert right in colours([Tile(PICTURE, "cat", "cat", 0.9)])
    assert wrong not in colours([Tile(PICTURE, "cat", "cat", 0.9)])
    assert {right, wrong} <= colours([Tile(PICTURE, "cat", "cat", 0.9), Tile(PICTURE, "cat", "dog", 0.4)])


def test_a_name_with_a_line_break_is_written_in_one_line() -> None:
    broken, plain = (contact_sheet([Tile(PICTURE, f"tabby{gap}cat", "cat", 0.5)]) for gap in ("\n", " "))
    assert (np.asarray(broken) == np.asarray(plain)).all()


def test_a_long_name_ends_within_its_tile() -> None:
    sheet = np.asarray(contact_sheet([Tile(PICTURE, "a very long name of a class " * 3, "cat", 0.5)]))
    assert (sheet[:, -GAP_PX:] == 255).all()
    # The caption fills its tile: the name was cut, not left out.
    assert (sheet[GAP_PX + TILE_PX :, TILE_PX - 20 : GAP_PX + TILE_PX] < 128).any()


def test_letters_beyond_ascii_are_written_and_not_boxes() -> None:
    sheets = [
        np.asarray(contact_sheet([Tile(PICTURE, name, "cat", 0.5)]))
        for name in ("ää", "öö", "\u0434\u0434", "\u03b2\u03b2")
    ]
    assert len({sheet.tobytes() for sheet in sheets}) == 4
    composed, decomposed = (contact_sheet([Tile(PICTURE, name, "cat", 0.5)]) for name in ("\u00e4", "a\u0308"))
    assert (np.asarray(composed) == np.asarray(decomposed)).all()
