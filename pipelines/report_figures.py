"""Pictures of the report, each drawn from report.json alone."""

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind eyes tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
MARKERS = ("o", "s", "^", "D", "v", "P")
DOTS_PER_INCH = 120


def figures(report: dict[str, Any]) -> dict[str, bytes]:
    """PNG files by name; those for which there is something to show."""
    pictures = {"error_by_models.png": _error_by_models(report), "reliability.png": _reliability(report)}
    if report["view_groups"]:
        pictures["views.png"] = _views(report)
    if report["diversity"]["pairs"]:
        pictures["diversity.png"] = _diversity(report)
    return pictures


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    # Without the metadata that matplotlib adds, equal reports have equal pictures.
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def _error_by_models(report: dict[str, Any]) -> bytes:
    figure, axes = _axes(6, 4)
    policies = dict.fromkeys((row["policy"], row["crops"]) for row in report["table"])
    for number, (policy, crops) in enumerate(policies):
        rows = [row for row in report["table"] if row["policy"] == policy]
        models = [row["models"] for row in rows]
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        number_of_crops = f"{crops} crop{'s' if crops > 1 else ''}"
        label = number_of_crops if str(crops) == policy else f"{number_of_crops} at {policy} px"
        axes.plot(models, [row["top1_error"] for row in rows], marker=marker, color=colour, label=label)
        low, high = zip(*(row["top1_ci95"] for row in rows), strict=True)
        axes.fill_between(models, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.set_xticks(sorted({row["models"] for row in report["table"]}))
    axes.set_xlabel("models")
    axes.set_ylabel("top-1 error, %  (band: 95 % interval)")
    axes.legend(frameon=False)
    return _png(figure)


def _reliability(report: dict[str, Any]) -> bytes:
    figure, axes = _axes(4.5, 4.5)
    bins = report["reliability"]
    lefts = [b["confidence_from"] for b in bins]
    widths = [b["confidence_to"] - b["confidence_from"] for b in bins]
    axes.bar(lefts, [b["accuracy"] for b in bins], widths, align="edge", color=COLOURS[0], edgecolor="white")
    axes.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1, label="perfectly calibrated")
    axes.plot(
        [b["mean_confidence"] for b in bins],
        [b["accuracy"] for b in bins],
        linestyle="none",
        marker="o",
        color=COLOURS[1],
        label="mean confidence",
    )
    for b in bins:
        axes.annotate(str(b["images"]), (b["mean_confidence"], 0.01), ha="center", fontsize=6, color="white")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence (below: images)", ylabel="accuracy")
    figure.legend(frameon=False, loc="outside upper center", ncols=2)
    return _png(figure)


def _views(report: dict[str, Any]) -> bytes:
    groups = report["view_groups"]
    figure, axes = _axes(6.5, 0.32 * len(groups) + 1.2)
    positions = range(len(groups))
    for shift, key, colour, marker, label in (
        (-0.12, "", COLOURS[1], "s", "one model"),
        (0.12, "_all_models", COLOURS[0], "o", "all models"),
    ):
        errors = [group[f"top1_error{key}"] for group in groups]
        spread = [
            [error - group[f"top1_ci95{key}"][0] for error, group in zip(errors, groups, strict=True)],
            [group[f"top1_ci95{key}"][1] - error for error, group in zip(errors, groups, strict=True)],
        ]
        axes.errorbar(
            errors,
            [p + shift for p in positions],
            xerr=spread,
            linestyle="none",
            marker=marker,
            color=colour,
            label=label,
        )
    axes.set_yticks(list(positions), [group["group"] for group in groups])
    axes.invert_yaxis()
    axes.set_xlabel("top-1 error, %, averaged over these views alone")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.1), ncols=2)
    return _png(figure)


def _diversity(report: dict[str, Any]) -> bytes:
    figure, axes = _axes(5, 4)
    pairs = report["diversity"]["pairs"]
    axes.scatter([pair["disagreement"] for pair in pairs], [pair["gain"] for pair in pairs], color=COLOURS[0])
    axes.axhline(0, color="black", linewidth=0.8, linestyle="--")
    axes.set_xlabel("disagreement of two replicas, % of images")
    axes.set_ylabel("gain of averaging the two, points of top-1 error")
    return _png(figure)
