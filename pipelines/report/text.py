"""The report as text: the table for the terminal, and the complete report in Markdown."""

from collections.abc import Sequence
from typing import Any

from googlenet.evaluation.metrics import TOP_K
from pipelines.report.schema import CropPolicy, Report

HEADINGS = (
    "models",
    "crops",
    "cost",
    "seconds",
    "top-1 error %",
    "95 % interval",
    "top-5 error %",
    "95 % interval",
    "paper top-5 %",
)
TEXT_COLUMNS = {"replica", "replicas", "views", "class", "most often taken for", "image", "label", "answer"}
CLASSES_SHOWN = 20
MISTAKES_SHOWN = 10


def table_text(report: Report, cost: dict[str, Any]) -> str:
    """Return the table in aligned columns, and the remarks on it."""
    rows = [HEADINGS, *_cells(report, cost)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, *notes(report)])


def headline(report: Report) -> str:
    """Return the errors of the first and the last cell of the table in a sentence."""
    first, last = report["table"][0], report["table"][-1]
    errors = [
        f"{row['top1_error']:.2f} / {row['top5_error']:.2f} % with {row['models']} x {_crops(row)}"
        for row in (first, last)
    ]
    return f"Top-1 / top-5 error {errors[0]}, {errors[1]} (models x crops) on {report['images']} images."


def headline_markdown(report: Report, cost: dict[str, Any]) -> str:
    """Return the rows of one model and of all models, as in the paper's table, and the remarks on them."""
    most = report["table"][-1]["models"]
    rows = [
        cells for row, cells in zip(report["table"], _cells(report, cost), strict=True) if row["models"] in (1, most)
    ]
    return "\n\n".join([_table(HEADINGS, rows), *notes(report)])


def markdown(report: Report, cost: dict[str, Any]) -> str:
    """Return the complete report; pictures are linked by file name."""
    sections = [
        "# Models x crops",
        _table(HEADINGS, _cells(report, cost)),
        "\n".join(notes(report)),
        _about_cost(cost),
        "![Error by the number of models](error_by_models.png)",
        "## Compared with one model and the fewest crops",
        "Paired differences of top-1 error in percentage points, and the spread over the ensembles of a size.",
        _table(
            ("models", "crops", "difference", "95 % interval", "ensembles", "lowest - highest %"), _differences(report)
        ),
        "## Replicas",
        _table(("replica", "crops", "top-1 error %", "top-5 error %"), _replicas(report)),
        *_view_sections(report),
        *_calibration_sections(report),
        *_diversity_sections(report),
        *_class_sections(report),
    ]
    return "\n\n".join(sections) + "\n"


def _about_cost(cost: dict[str, Any]) -> str:
    return (
        "Cost is in forward passes per image, seconds are the time of one predictor per image "
        f"({cost['passes_per_second'] or 0:.0f} passes per second, {cost['arithmetic']}). "
        "The paper's errors (table 3) are for ImageNet."
    )


def _cells(report: Report, cost: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            str(row["models"]),
            _crops(row),
            str(row["forward_passes"]),
            f"{row['forward_passes'] * cost['seconds_per_pass']:.3f}",
            f"{row['top1_error']:.2f}",
            _interval(row["top1_ci95"]),
            f"{row['top5_error']:.2f}",
            _interval(row["top5_ci95"]),
            "" if row["paper_top5_error"] is None else f"{row['paper_top5_error']:.2f}",
        )
        for row in report["table"]
    ]


def _crops(row: CropPolicy) -> str:
    """Return the number of crops, with their scales if the user chose those."""
    return str(row["crops"]) if row["policy"] == str(row["crops"]) else f"{row['crops']} ({row['policy']} px)"


def _interval(bounds: Sequence[float]) -> str:
    return f"{bounds[0]:.2f} - {bounds[1]:.2f}"


def _signed_interval(bounds: Sequence[float]) -> str:
    return f"{bounds[0]:+.2f} to {bounds[1]:+.2f}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    sides = (":---" if heading in TEXT_COLUMNS else "---:" for heading in headings)
    lines = ["| " + " | ".join(headings) + " |", "| " + " | ".join(sides) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(_escape(cell) for cell in row) + " |" for row in rows)])


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def notes(report: Report) -> list[str]:
    """Return the remarks on the table."""
    single = report["single_model"]
    chosen = ", ".join(f"{r['top1_error']:.2f} / {r['top5_error']:.2f} % with {_crops(r)}" for r in single["rows"])
    remarks = [
        f"{report['images']} images, {report['classes']} classes; each row is the mean over all ensembles of its size.",
        f"One model chosen as in the paper ({single['replica']}, lowest top-1 error): top-1 / top-5 {chosen} crops.",
    ]
    wanted = report.get("run", {}).get("recipe", {}).get("replicas", 0)
    trained = report["ensemble"]["replicas"]
    if len(trained) < wanted:
        remarks.append(f"Only {len(trained)} of {wanted} replicas: {', '.join(trained)}. The others failed.")
    if report["classes"] <= max(TOP_K):
        remarks.append("With five classes or fewer the top-5 error is zero by definition.")
    return remarks


def _differences(report: Report) -> list[tuple[str, ...]]:
    return [
        (
            str(row["models"]),
            _crops(row),
            f"{row['top1_difference']:+.2f}",
            _signed_interval(row["top1_difference_ci95"]),
            str(row["ensembles"]),
            _interval(row["top1_range"]),
        )
        for row in report["table"]
    ]


def _replicas(report: Report) -> list[tuple[str, ...]]:
    return [
        (replica["replica"], _crops(row), f"{row['top1_error']:.2f}", f"{row['top5_error']:.2f}")
        for replica in report["replicas"]
        for row in replica["rows"]
    ]


def _view_sections(report: Report) -> list[str]:
    pooling = [
        (
            str(row["models"]),
            f"{row['top1_error_average']:.2f}",
            f"{row['top1_error_max']:.2f}",
            f"{row['top1_difference']:+.2f}",
            _signed_interval(row["top1_difference_ci95"]),
        )
        for row in report["pooling"]
    ]
    groups = [
        (
            group["group"],
            f"{group['top1_error']:.2f}",
            _interval(group["top1_ci95"]),
            f"{group['top1_error_all_models']:.2f}",
            _interval(group["top1_ci95_all_models"]),
        )
        for group in report["view_groups"]
    ]
    sections = [
        f"## Averaging or maximum over {_crops(report['pooling'][0])} crops",
        "Top-1 error; the maximum is taken over the views of each model, then models are averaged.",
        _table(("models", "average %", "maximum %", "difference", "95 % interval"), pooling),
    ]
    if groups:
        sections += [
            "## Which views help",
            "Top-1 error of the average over all views of a kind, for one model and for all models.",
            _table(("views", "one model %", "95 % interval", "all models %", "95 % interval"), groups),
            "![Error by scale and kind of view](views.png)",
        ]
    return sections


def _calibration_sections(report: Report) -> list[str]:
    rows = [
        (
            str(row["models"]),
            _crops(row),
            f"{row['negative_log_likelihood']:.4f}",
            f"{row['brier_score']:.4f}",
            f"{row['expected_calibration_error']:.4f}",
        )
        for row in report["calibration"]
    ]
    headings = ("models", "crops", "negative log-likelihood", "Brier score", "expected calibration error")
    return ["## Calibration", _table(headings, rows), "![Reliability diagram](reliability.png)"]


def _diversity_sections(report: Report) -> list[str]:
    pairs = report["diversity"]["pairs"]
    if not pairs:
        return []
    rows = [
        ("{} and {}".format(*pair["replicas"]), f"{pair['disagreement']:.2f}", f"{pair['gain']:+.2f}") for pair in pairs
    ]
    return [
        "## Diversity",
        "Images that two replicas answer differently, and their mean error minus that of their average (most crops).",
        _table(("replicas", "disagreement %", "gain"), rows),
        "![Gain against disagreement](diversity.png)",
    ]


def _class_sections(report: Report) -> list[str]:
    worst = sorted(
        (c for c in report["class_errors"] if c["images"]), key=lambda c: (-(c["top1_error"] or 0.0), c["class"])
    )
    classes = [
        (row["class"], str(row["images"]), f"{row['top1_error']:.2f}", row["most_often_taken_for"] or "")
        for row in worst[:CLASSES_SHOWN]
    ]
    mistakes = [
        (
            mistake["image_id"],
            mistake["label"],
            mistake["answer"],
            f"{mistake['probability']:.3f}",
            f"{mistake['probability_of_label']:.3f}",
        )
        for mistake in report["mistakes"][:MISTAKES_SHOWN]
    ]
    shown = f"The {CLASSES_SHOWN} worst of {len(worst)}" if len(worst) > CLASSES_SHOWN else "All"
    return [
        "## Classes",
        f"{shown} by top-1 error of all models with the most crops; confusion.csv has every count.",
        _table(("class", "images", "top-1 error %", "most often taken for"), classes),
        "## Most confident mistakes",
        _table(("image", "label", "answer", "probability", "of the label"), mistakes),
    ]
