"""Pictures of the training of all replicas in one plot each."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.drawing import COLOURS
from pipelines.run_directory import read_metrics, replica_number
from pipelines.storage import Storage

# Seven replicas and six colours: the lines differ as well.
LINES = ("-", "--", ":")


def read_curves(run: Storage, replicas: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The epochs of each of ``replicas`` that has any, by its name."""
    curves = {name: read_metrics(run, replica_number(name)) for name in replicas}
    return {name: epochs for name, epochs in curves.items() if epochs}


def learning_curves(curves: dict[str, list[dict[str, Any]]]) -> Figure:
    """Loss on the training samples, and validation error of the averaged and the raw weights, by epoch."""
    figure = Figure(figsize=(6, 7.5), layout="constrained")
    loss, averaged, raw = figure.subplots(3, 1, sharex=True)
    averaged.sharey(raw)
    for axes, key, title in (
        (loss, "train_loss_logits", "training loss of the main head"),
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


def _draw(axes: Axes, curves: dict[str, list[dict[str, Any]]], key: str) -> None:
    for number, (name, epochs) in enumerate(curves.items()):
        known = [line for line in epochs if key in line]
        axes.plot(
            [line["epoch"] for line in known],
            [line[key] for line in known],
            color=COLOURS[number % len(COLOURS)],
            linestyle=LINES[number // len(COLOURS) % len(LINES)],
            marker="." if len(epochs) == 1 else None,
            linewidth=1.2,
            label=name.replace("_", " "),
        )
