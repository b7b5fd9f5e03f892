"""Pictures of the ensemble, of its classes and of its training.

The ensemble is drawn from report.json alone, the classes also from the confusion matrix, the training from the
replicas' metrics.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.job.console import count
from pipelines.report.columns import crops_in_words
from pipelines.report.drawing import COLOURS, MARKERS, matrix, new_axes
from pipelines.report.schema import Report
from pipelines.report.schema_of_certainty import ReliabilityBin
from pipelines.run.directory import replica_number
from pipelines.run.json_lines import Line, read_metrics
from pipelines.run.storage import Storage

CLASSES_SHOWN = 30
# Two replicas are a single pair: a plot of pairs would show one dot.
FEWEST_FOR_PAIRS = 3
LONGEST_NAME = 24
# There are more replicas than colours, so the lines differ as well.
LINES = ("-", "--", ":")

ErrorKey = Literal["top1_error", "top1_error_all_models"]
IntervalKey = Literal["top1_ci95", "top1_ci95_all_models"]


def figures(report: Report) -> dict[str, Figure]:
    """Return the pictures of the ensemble by name; those without data are left out."""
    pictures = {"error_by_models": _error_by_models(report), "reliability": _reliability(report)}
    if report.get("selective"):
        pictures["selective"] = _selective(report)
    if report["view_groups"]:
        pictures["views"] = _views(report)
    if len(report["replicas"]) >= FEWEST_FOR_PAIRS:
        pictures |= {"diversity": _diversity(report), "disagreement": _disagreement(report)}
    return pictures


def _error_by_models(report: Report) -> Figure:
    figure, axes = new_axes(6, 4)
    policies = dict.fromkeys((row["policy"], row["crops"]) for row in report["table"])
    for number, (policy, crops) in enumerate(policies):
        rows = [row for row in report["table"] if row["policy"] == policy]
        models = [row["models"] for row in rows]
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        label = crops_in_words({"policy": policy, "crops": crops})
        axes.plot(models, [row["top1_error"] for row in rows], marker=marker, color=colour, label=label)
        low, high = zip(*(row["top1_ci95"] for row in rows), strict=True)
        axes.fill_between(models, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.set_xticks(sorted({row["models"] for row in report["table"]}))
    axes.set_xlabel("models")
    axes.set_ylabel("top-1 error, %  (band: 95 % interval over images)")
    axes.legend(frameon=False)
    return figure


def _reliability(report: Report) -> Figure:
    diagrams = {"as averaged": report["reliability"]}
    if calibrated := report.get("reliability_calibrated"):
        diagrams["with a temperature"] = calibrated
    # One above the other, so that the numbers of images can be read on a telephone.
    figure = Figure(figsize=(5, 0.8 + 3.2 * len(diagrams)), layout="constrained")
    for axes, (name, bins) in zip(figure.subplots(len(diagrams), squeeze=False)[:, 0], diagrams.items(), strict=True):
        _draw_reliability(axes, bins)
        # Of many images, a temperature is judged on a share.
        images = sum(b["images"] for b in bins)
        axes.set_title(f"{name}, {count(images, 'image')}; in each bin:", fontsize=9, loc="left", pad=20)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside upper center", ncols=1, fontsize=8)
    return figure


def _draw_reliability(axes: Axes, bins: list[ReliabilityBin]) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    lefts = [b["confidence_from"] for b in bins]
    widths = [b["confidence_to"] - b["confidence_from"] for b in bins]
    axes.bar(
        lefts,
        [b["accuracy"] for b in bins],
        widths,
        align="edge",
        color=COLOURS[0],
        edgecolor="white",
        label="accuracy of the answers in a bin",
    )
    axes.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1, label="perfectly calibrated")
    axes.plot(
        [b["mean_confidence"] for b in bins],
        [b["accuracy"] for b in bins],
        linestyle="none",
        marker="o",
        color=COLOURS[1],
        clip_on=False,
        label="the same, at the bin's mean confidence",
    )
    for b in bins:
        # Above the axes, in the colour of the page's text, whatever the height of the bar.
        middle = (b["confidence_from"] + b["confidence_to"]) / 2
        axes.annotate(f"{b['images']}", (middle, 1.035), ha="center", fontsize=8, annotation_clip=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence of the answer", ylabel="accuracy")
    axes.tick_params(pad=6)  # the zeros of both axes meet in the corner


def _selective(report: Report) -> Figure:
    figure, axes = new_axes(5, 4)
    for number, row in enumerate(report["selective"]):
        answered, errors = zip(*row["remaining_errors"], strict=True)
        label = f"{row['measure'].replace('_', ' ')} (area {row['area']:.2f} %)"
        axes.plot(answered, errors, color=COLOURS[number], marker=MARKERS[number], markersize=4, label=label)
    axes.set_xlabel("images answered, %, the surest first")
    axes.set_ylabel("top-1 error among them, %")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _views(report: Report) -> Figure:
    groups = report["view_groups"]
    figure, axes = new_axes(6.5, 0.32 * len(groups) + 1.2)
    positions = range(len(groups))
    series: tuple[tuple[float, ErrorKey, IntervalKey, str, str, str], ...] = (
        (-0.12, "top1_error", "top1_ci95", COLOURS[1], "s", "one model"),
        (0.12, "top1_error_all_models", "top1_ci95_all_models", COLOURS[0], "o", "all models"),
    )
    for shift, error_key, interval_key, colour, marker, label in series:
        errors = [group[error_key] for group in groups]
        spread = [
            [error - group[interval_key][0] for error, group in zip(errors, groups, strict=True)],
            [group[interval_key][1] - error for error, group in zip(errors, groups, strict=True)],
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
    axes.set_xlabel("top-1 error, %, averaged over these views only")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.1), ncols=2)
    return figure


def _diversity(report: Report) -> Figure:
    figure, axes = new_axes(5, 4)
    pairs = report["diversity"]["pairs"]
    axes.scatter([pair["disagreement"] for pair in pairs], [pair["gain"] for pair in pairs], color=COLOURS[0])
    axes.axhline(0, color="black", linewidth=0.8, linestyle="--")
    axes.set_xlabel("disagreement of two replicas, % of images")
    axes.set_ylabel("gain from averaging the two, points of top-1 error")
    return figure


def _disagreement(report: Report) -> Figure:
    names = [name.rpartition("_")[2] for name in report["ensemble"]["replicas"]]
    shares = np.array(report["diversity"]["disagreement"])
    figure, axes = new_axes(4.5, 4)
    matrix(axes, shares, names, names, "{:.1f}")
    axes.set(xlabel="replica", ylabel="replica", title="images that two replicas answer differently, %")
    return figure


def class_figures(report: Report, confusion: npt.NDArray[np.int32]) -> dict[str, Figure]:
    """Return the pictures of the classes by name. Of many classes, those with the highest errors are shown."""
    seen = [number for number, row in enumerate(report["class_errors"]) if row["images"]]
    hardest = sorted(seen, key=lambda number: -(report["class_errors"][number]["top1_error"] or 0.0))[:CLASSES_SHOWN]
    return {
        "class_errors": _class_errors(report, hardest, len(seen)),
        "confusion": _confusion(report, confusion, sorted(hardest), len(seen)),
    }


def _class_errors(report: Report, hardest: list[int], classes: int) -> Figure:
    rows = [report["class_errors"][number] for number in hardest]
    figure, axes = new_axes(6.5, 0.24 * len(rows) + 1.2)
    axes.barh(range(len(rows)), [row["top1_error"] or 0.0 for row in rows], color=COLOURS[0])
    axes.set_yticks(range(len(rows)), [_short(row["class"]) for row in rows], parse_math=False)
    axes.invert_yaxis()
    axes.set(xlabel="top-1 error of all models with the most crops, %", title=_title("errors", len(rows), classes))
    return figure


def _confusion(report: Report, confusion: npt.NDArray[np.int32], shown: list[int], classes: int) -> Figure:
    names = [_short(row["class"]) for row in report["class_errors"]]
    # Beside the classes shown, those of other answers: otherwise a mistake would be in no column.
    answers = confusion[shown].sum(axis=0)
    others = [int(label) for label in np.argsort(-answers, kind="stable") if answers[label] and label not in shown]
    named = [*shown, *others[: max(0, CLASSES_SHOWN - len(shown))]]
    counts, columns = confusion[np.ix_(shown, named)], [names[label] for label in named]
    if rest := others[len(named) - len(shown) :]:
        counts = np.column_stack([counts, confusion[np.ix_(shown, rest)].sum(axis=1)])
        columns.append("(others)")
    figure, axes = new_axes(max(0.3 * len(columns) + 2, 4), max(0.3 * len(shown) + 2, 4))
    matrix(axes, counts, [names[label] for label in shown], columns, "{}")
    axes.set(xlabel="answer", ylabel="label", title=_title("images", len(shown), classes))
    return figure


def _title(what: str, shown: int, classes: int) -> str:
    return "" if shown == classes else f"{what}, the {shown} hardest of {classes:,} classes"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def read_curves(run: Storage, replicas: Sequence[str]) -> dict[str, list[Line]]:
    """Return the metrics of each of ``replicas`` that has finished an epoch, by name: one entry per epoch."""
    curves = {name: read_metrics(run, replica_number(name)) for name in replicas}
    return {name: epochs for name, epochs in curves.items() if epochs}


def learning_curves(curves: dict[str, list[Line]]) -> Figure:
    """Draw the loss on training samples, and the validation error of averaged and raw weights, by epoch."""
    figure = Figure(figsize=(6, 7.5), layout="constrained")
    loss, averaged, raw = figure.subplots(3, 1, sharex=True)
    averaged.sharey(raw)
    for axes, key, title in (
        (loss, "train_loss_logits", "training loss of the upper classifier"),
        (averaged, "val_top1_error", "validation error, averaged weights, %"),
        (raw, "val_top1_error_raw_weights", "validation error, raw weights, %"),
    ):
        _draw(axes, curves, key)
        axes.set_title(title, fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    raw.set_xlabel("epoch")
    handles, labels = loss.get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _draw(axes: Axes, curves: dict[str, list[Line]], key: str) -> None:
    for number, (name, epochs) in enumerate(curves.items()):
        known = [line for line in epochs if key in line]
        axes.plot(
            [line["epoch"] for line in known],
            [line[key] for line in known],
            color=COLOURS[number % len(COLOURS)],
            linestyle=LINES[number // len(COLOURS) % len(LINES)],
            marker="." if len(known) == 1 else None,
            linewidth=1.2,
            label=name.replace("_", " "),
        )
