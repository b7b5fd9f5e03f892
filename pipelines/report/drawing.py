"""Drawing of pictures: colours for colour-blind readers, PNG files, and SVG in the colours of the page."""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's palette, which stands out from white and from black.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#666666", "#8C564B")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
# From dark blue to yellow with rising lightness, made for colour-blind readers.
COLOUR_MAP = "cividis"
DOTS_PER_INCH = 120
# The numbers in more cells than this would be unreadable.
MOST_CELLS = 400


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty picture of ``width`` x ``height`` inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def matrix(axes: Axes, values: npt.NDArray[Any], rows: Sequence[str], columns: Sequence[str], number: str) -> None:
    """Draw ``values`` as coloured cells, with their numbers if these are readable."""
    axes.imshow(values, cmap=COLOUR_MAP)
    # Names are plain text: a dollar sign does not start a formula.
    axes.set_xticks(range(len(columns)), columns, rotation=90 if max(map(len, columns)) > 2 else 0, parse_math=False)
    axes.set_yticks(range(len(rows)), rows, parse_math=False)
    axes.spines[:].set_visible(False)
    if values.size > MOST_CELLS:
        return
    middle = (float(values.max()) + float(values.min())) / 2
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        if value:
            # Near-black and near-white: svg() does not replace these by the page's colours.
            ink = "#010101" if value > middle else "#fefefe"
            axes.text(column, row, number.format(value), ha="center", va="center", fontsize=7, color=ink)


@contextmanager
def _without_words_on_glyphs() -> Iterator[None]:
    """Draw names in letters that the font lacks as boxes, without a warning for each: the page has them as text."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
        yield


@_without_words_on_glyphs()
def png(figure: Figure) -> bytes:
    """Return the picture as a PNG file, on white, and keep its layout for :func:`svg`."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.set_dpi(DOTS_PER_INCH)
    if engine := figure.get_layout_engine():  # savefig would draw the picture once more for it, without result
        engine.execute(figure)
    figure.set_layout_engine(None)  # a second layout would take longer than drawing
    # Without matplotlib's metadata, equal reports have equal pictures.
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


@_without_words_on_glyphs()
def svg(figure: Figure, title: str) -> str:
    """Return the picture as an HTML element: black becomes the page's text colour, white its background."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    element = buffer.getvalue()
    # Ids are unique within one picture only; a page holds several.
    prefix = re.sub(r"\W+", "-", title)

    def of_the_page(tag: re.Match[str]) -> str:
        coloured = re.sub(r'style="[^"]*"', _in_the_pages_colours, tag[0])
        return re.sub(r'(\bid="|href="#|url\(#)', rf"\1{prefix}-", coloured)

    # In tags alone: the text between them may be a name that looks like an attribute.
    element = re.sub(r"<[^>]*>", of_the_page, element[element.index("<svg") :])
    return element.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def _in_the_pages_colours(style: re.Match[str]) -> str:
    return style[0].replace("#000000", "currentColor").replace("#ffffff", "var(--page)")
