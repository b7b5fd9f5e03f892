"""Picture of the error against forward passes, for every way to spend them."""

import numpy as np
from matplotlib.figure import Figure

from pipelines.report.drawing import COLOURS, MARKERS, new_axes
from pipelines.report.schema import Report
from pipelines.report.tables_of_spending import WAYS

BUDGET_MARKERS = ("*", "X")


def spending(report: Report, seconds_per_pass: float) -> Figure:
    """Draw a line for each way, join the efficient points, and mark the budgets; seconds are above the axes."""
    figure, axes = new_axes(5.2, 5.2)
    for number, (way, label) in enumerate(WAYS.items()):
        of_way = (row for row in report["spending"] if row["way"] == way and "budget" not in row)
        rows = sorted(of_way, key=lambda row: row["passes"])
        if rows:
            # Cells with more of both lie on a grid, and soups are of two kinds: neither lies along a line.
            line = "none" if way in ("replicas_and_views", "soup") else "-"
            passes, errors = [row["passes"] for row in rows], [row["top1_error"] for row in rows]
            [drawn] = axes.plot(passes, errors, linestyle=line, linewidth=1, label=label)
            drawn.set(color=COLOURS[number], marker=MARKERS[number], markersize=4)
    best = sorted((row["passes"], row["top1_error"]) for row in report["spending"] if row["efficient"])
    axes.plot(*zip(*best, strict=True), color="black", linewidth=1, linestyle=":", label="efficient")
    # Named in the legend, since budgets may cost nearly the same: names beside the marks would overlap.
    for marker, (budget_passes, error, label) in zip(BUDGET_MARKERS, _budgets(report), strict=False):
        [drawn] = axes.plot(budget_passes, error, linestyle="none", marker=marker, markersize=11)
        drawn.set(color="black", markerfacecolor=COLOURS[1], label=label)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("forward passes per image, mean")
    axes.set_ylabel("top-1 error, %")
    if seconds_per_pass:
        scale = lambda passes: np.multiply(passes, seconds_per_pass)  # noqa: E731
        above = axes.secondary_xaxis("top", functions=(scale, lambda seconds: np.divide(seconds, seconds_per_pass)))
        above.xaxis.set_major_formatter("{x:g}")
        above.set_xlabel("seconds per image of one predictor, here", labelpad=8)
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    return figure


def _budgets(report: Report) -> list[tuple[float, float, str]]:
    """Return passes, error and label of each budget; a student has those of its teacher."""
    if own := report.get("budgets"):
        return [(row["passes"], row["top1_error"], f"{row['budget']}: {row['saving']:.1f} % saved") for row in own]
    taught = (row for row in report["spending"] if "budget" in row)
    return [(row["passes"], row["top1_error"], f"{row['budget']}, of the teacher") for row in taught]
