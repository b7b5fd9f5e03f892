"""Stage 4: the paper's table, models x crops, from the predictions. Single process, no Ray.

It refuses to report unless every validation image occurs exactly once, with all its views from every replica.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from googlenet.metrics import TOP_K, bootstrap_interval, ensemble_errors, subsets
from pipelines.dataset import image_ids, read_manifest
from pipelines.errors import UserError
from pipelines.predictions import Ensemble, Predicted, read_ensemble, read_predictions
from pipelines.run_directory import PREDICTIONS, REPORT, RUN
from pipelines.storage import Storage

REPORT_JSON = f"{REPORT}/report.json"
REPORT_MARKDOWN = f"{REPORT}/report.md"
# Table 3: (models, crops) to top-5 error in percent. The paper prints no top-1 error.
PAPER_TOP5_ERROR = {(1, 1): 10.07, (1, 10): 9.15, (1, 144): 7.89, (7, 1): 8.09, (7, 10): 7.62, (7, 144): 6.67}
NAMES_IN_MESSAGE = 5

Errors = npt.NDArray[np.float64]
Cell = tuple[tuple[int, ...], int]  # the members of an ensemble, and the crop policy


def write_report(run: Storage, ensemble: Ensemble) -> str:
    """Write report.json and report.md; the table as text for the terminal.

    Raises:
        UserError: predictions are missing, doubled, of images that the data set does not have, or of another ensemble.
    """
    report = build_report(run, ensemble)
    if run.exists(RUN):
        report["run"] = run.read_json(RUN)
    run.write_json(REPORT_JSON, report)
    run.write(REPORT_MARKDOWN, _markdown(report).encode())
    return table_text(report)


def build_report(run: Storage, ensemble: Ensemble) -> dict[str, Any]:
    """Everything that report.json holds; errors in percent."""
    storage = run.below(PREDICTIONS)
    names = storage.files("")
    strangers = [name for name in names if read_ensemble(storage, name) != ensemble]
    if strangers:
        raise UserError(f"{storage}/{strangers[0]} is damaged or of another ensemble; evaluate again to replace it")
    seen: Counter[str] = Counter()
    errors: dict[Cell, list[npt.NDArray[np.bool_]]] = {}
    for predicted in read_predictions(storage, names, ensemble):
        _check_views(predicted, ensemble)
        seen.update(predicted.image_ids)
        for position, policy in enumerate(ensemble.policies):
            for members, wrong in ensemble_errors(predicted.probabilities[:, :, position], predicted.labels):
                errors.setdefault((members, policy), []).append(wrong)
    _check_complete(seen, image_ids(run, read_manifest(run).splits["val"]))
    percent: dict[Cell, Errors] = {
        cell: np.concatenate(parts).astype(np.float64) * 100 for cell, parts in errors.items()
    }
    return {
        "images": seen.total(),
        "classes": len(ensemble.classes),
        "table": _table(percent, ensemble),
        "single_model": _single_model(percent, ensemble),
        "replicas": _by_replica(percent, ensemble),
        "paper_top5_error": [
            {"models": models, "crops": crops, "top5_error": error}
            for (models, crops), error in PAPER_TOP5_ERROR.items()
        ],
        "ensemble": ensemble.to_dict(),
    }


def _check_views(predicted: Predicted, ensemble: Ensemble) -> None:
    wanted = np.array(ensemble.policies)
    for row, replica, position in np.argwhere(predicted.views != wanted):
        raise UserError(
            f"{predicted.image_ids[row]} has {predicted.views[row, replica, position]} of {wanted[position]} views "
            f"from {ensemble.replicas[replica]}; its weights may be damaged: mend them, delete {PREDICTIONS}/, go on"
        )


def _check_complete(seen: Counter[str], wanted: Sequence[str]) -> None:
    problems = {
        "not predicted": [name for name in wanted if name not in seen],
        "predicted more than once": [name for name, count in seen.items() if count > 1],
        "not in the data set": sorted(seen.keys() - set(wanted)),
    }
    found = [f"{len(names)} images {what}: {_some(names)}" for what, names in problems.items() if names]
    if found:
        raise UserError("no report: " + "; ".join(found) + ". Evaluate again; finished shards are kept.")


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - NAMES_IN_MESSAGE} more" if len(names) > NAMES_IN_MESSAGE else ""
    return ", ".join(names[:NAMES_IN_MESSAGE]) + rest


def _table(percent: dict[Cell, Errors], ensemble: Ensemble) -> list[dict[str, Any]]:
    """A row for every ensemble size and crop policy: the mean over all ensembles of that size, and their spread."""
    cells = {
        (size, policy): np.stack([percent[members, policy] for members in group])
        for size, group in subsets(len(ensemble.replicas)).items()
        for policy in ensemble.policies
    }
    # Each image's error is averaged over the ensembles of a size first: the interval is over images.
    low, high = bootstrap_interval(np.concatenate([cell.mean(axis=0) for cell in cells.values()], axis=1))
    rows = []
    for number, ((size, policy), cell) in enumerate(cells.items()):
        by_ensemble = cell.mean(axis=1)
        row: dict[str, Any] = {"models": size, "crops": policy}
        for column, name in enumerate(("top1", "top5")):
            at = 2 * number + column
            row[f"{name}_error"] = float(cell[:, :, column].mean())
            row[f"{name}_ci95"] = [float(low[at]), float(high[at])]
            row[f"{name}_range"] = [float(by_ensemble[:, column].min()), float(by_ensemble[:, column].max())]
        row["ensembles"] = len(cell)
        row["forward_passes"] = size * policy
        row["paper_top5_error"] = PAPER_TOP5_ERROR.get((size, policy))
        rows.append(row)
    return rows


def _single_model(percent: dict[Cell, Errors], ensemble: Ensemble) -> dict[str, Any]:
    """The paper's choice for its rows of one model: the replica of lowest validation error with the fewest crops."""
    first = min(ensemble.policies)
    best = min(range(len(ensemble.replicas)), key=lambda k: percent[(k,), first][:, 0].mean())
    return {"replica": ensemble.replicas[best], "rows": _rows_of_replica(percent, ensemble, best)}


def _by_replica(percent: dict[Cell, Errors], ensemble: Ensemble) -> list[dict[str, Any]]:
    return [
        {"replica": name, "rows": _rows_of_replica(percent, ensemble, k)} for k, name in enumerate(ensemble.replicas)
    ]


def _rows_of_replica(percent: dict[Cell, Errors], ensemble: Ensemble, replica: int) -> list[dict[str, Any]]:
    return [
        {"crops": policy, "top1_error": float(top1), "top5_error": float(top5)}
        for policy in ensemble.policies
        for top1, top5 in [percent[(replica,), policy].mean(axis=0)]
    ]


HEADINGS = (
    "models",
    "crops",
    "cost",
    "top-1 error %",
    "95 % interval",
    "top-5 error %",
    "95 % interval",
    "paper top-5 %",
)


def _cells(report: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for row in report["table"]:
        paper = row["paper_top5_error"]
        rows.append(
            (
                str(row["models"]),
                str(row["crops"]),
                str(row["forward_passes"]),
                f"{row['top1_error']:.2f}",
                "{:.2f} - {:.2f}".format(*row["top1_ci95"]),
                f"{row['top5_error']:.2f}",
                "{:.2f} - {:.2f}".format(*row["top5_ci95"]),
                f"{paper:.2f}" if paper is not None else "",
            )
        )
    return rows


def table_text(report: dict[str, Any]) -> str:
    """The table in aligned columns."""
    rows = [HEADINGS, *_cells(report)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, *_notes(report)])


def _notes(report: dict[str, Any]) -> list[str]:
    single = report["single_model"]
    chosen = ", ".join(f"{r['top1_error']:.2f} / {r['top5_error']:.2f} % with {r['crops']}" for r in single["rows"])
    notes = [
        f"{report['images']} images, {report['classes']} classes; each row is the mean over all ensembles of its size.",
        f"The paper's choice of one model ({single['replica']}, lowest top-1 error): top-1 / top-5 {chosen} crops.",
    ]
    if report["classes"] <= max(TOP_K):
        notes.append("With five classes or fewer the top-5 error is zero by definition.")
    return notes


def _markdown(report: dict[str, Any]) -> str:
    lines = [
        "# Models x crops",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|" + " ---: |" * len(HEADINGS),
        *("| " + " | ".join(row) + " |" for row in _cells(report)),
        "",
        *_notes(report),
        "",
        "The cost is in forward passes an image. The paper's figures (table 3) are for ImageNet.",
        "",
        "## Replicas",
        "",
        "| replica | crops | top-1 error % | top-5 error % |",
        "| --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {replica['replica']} | {row['crops']} | {row['top1_error']:.2f} | {row['top5_error']:.2f} |"
        for replica in report["replicas"]
        for row in replica["rows"]
    ]
    return "\n".join(lines) + "\n"
