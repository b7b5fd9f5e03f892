"""Pictures of classes: which of them are hard, and what they are taken for."""

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from pipelines.drawing import COLOURS, matrix, new_axes

CLASSES_SHOWN = 30
LONGEST_NAME = 24


def class_figures(report: dict[str, Any], confusion: npt.NDArray[np.int64]) -> dict[str, Figure]:
    """Pictures by name. Of many classes those with most errors are shown."""
    seen = [number for number, row in enumerate(report["class_errors"]) if row["images"]]
    hardest = sorted(seen, key=lambda number: -report["class_errors"][number]["top1_error"])[:CLASSES_SHOWN]
    return {
        "class_errors": _class_errors(report, hardest, len(seen)),
        "confusion": _confusion(report, confusion, sorted(hardest), len(seen)),
    }


def _class_errors(report: dict[str, Any], hardest: list[int], classes: int) -> Figure:
    rows = [report["class_errors"][number] for number in hardest]
    figure, axes = new_axes(6.5, 0.24 * len(rows) + 1.2)
    axes.barh(range(len(rows)), [row["top1_error"] for row in rows], color=COLOURS[0])
    axes.set_yticks(range(len(rows)), [_short(row["class"]) for row in rows], parse_math=False)
    axes.invert_yaxis()
    axes.set(xlabel="top-1 error of all models with the most crops, %", title=_title("errors", len(rows), classes))
    return figure


def _confusion(report: dict[str, Any], confusion: npt.NDArray[np.int64], shown: list[int], classes: int) -> Figure:
    names = [_short(report["class_errors"][number]["class"]) for number in shown]
    counts = confusion[np.ix_(shown, shown)]
    side = 0.3 * len(shown) + 2
    figure, axes = new_axes(side, side)
    matrix(axes, counts, names, names, "{}")
    axes.set(xlabel="answer", ylabel="label", title=_title("images", len(shown), classes))
    return figure


def _title(what: str, shown: int, classes: int) -> str:
    return "" if shown == classes else f"{what}, the {shown} hardest of {classes} classes"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
