"""The report as one self-contained HTML file: no server, no network, no script."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipelines.job.console import count
from pipelines.report.certainty import about_share, certainty_tables
from pipelines.report.columns import (
    Top,
    chosen_model_error,
    crops_in_words,
    decimals,
    has_papers_classes,
    notable_over_replicas,
    tops_shown,
)
from pipelines.report.remarks import about_mistakes, cost_of_predictions, headline, notes
from pipelines.report.schema import Report, TableRow
from pipelines.report.schema_of_spending import MeasuredCost
from pipelines.report.tables_of_spending import spending_tables

TEMPLATE = "page.html.jinja"
# Colour of the highest error; text on it must be readable on light and on dark pages.
STRONGEST_PERCENT = 55
CAPTIONS = {
    "error_by_models": ("Error by the number of models", "Mean over all ensembles of a size."),
    "spending": (
        "Error against cost",
        "The dotted line joins the efficient ways to spend forward passes.",
    ),
    "learning_curves": (
        "Learning curves",
        "One centre crop of each validation image, after the epochs that were validated.",
    ),
    "views": ("Which views help", "Averaged over these views only."),
    "reliability": (
        "Reliability",
        "All models, most crops. On the dashed line, confidence equals accuracy; below it, the models are too sure.",
    ),
    "selective": (
        "Leaving the least sure images to people",
        "Top-1 error of all models with the most crops among the images that are answered, the surest first.",
    ),
    "confusion": ("Confusion", "All models, most crops; confusion.csv has every count."),
    "class_errors": ("Errors by class", "All models, most crops."),
    "disagreement": ("Disagreement of the replicas", "Most crops."),
    "diversity": ("Gain against disagreement", "Each dot is a pair of replicas."),
}


def report_page(
    report: Report,
    cost: MeasuredCost,
    data: str,
    facts: dict[str, str],
    pictures: dict[str, str],
    examples: dict[str, Any],
) -> str:
    """Return the page.

    Args:
        report: content of report.json.
        cost: content of cost.json.
        data: short name of the images; may be empty.
        facts: provenance of the run, by name.
        pictures: SVG elements by name.
        examples: ``image_id``, ``strips`` and ``mistakes`` of :mod:`pipelines.report.example_images`.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        count=count,
        title=_title(report, data),
        headline=headline(report),
        facts=facts,
        legend=_legend(report),
        heat_maps=[heat_map(report, top) for top in tops_shown(report)],
        figures=[
            {"name": name, "title": title, "text": f"{text}{_more_about(report, name)}", "svg": pictures[name]}
            for name, (title, text) in CAPTIONS.items()
            if name in pictures
        ],
        certainty=certainty_tables(report),
        spending=spending_tables(report, cost),
        examples=examples,
        about_mistakes=about_mistakes(report, len(examples["mistakes"])),
        notes=[*notes(report), cost_of_predictions(cost)],
    )


def _title(report: Report, data: str) -> str:
    return f"{count(len(report['ensemble']['replicas']), 'GoogLeNet')} on {data or 'images'}"


def _more_about(report: Report, picture: str) -> str:
    if picture == "selective":
        return about_share(report)
    has_marks = picture == "spending" and report.get("budgets")
    return " Star and cross are budgets of the cascade." if has_marks else ""


def _legend(report: Report) -> str:
    """Return what the numbers in the cells of the heat maps mean."""
    sentences = [
        "The stronger the colour, the higher the error. Small numbers are 95 % bootstrap intervals over images"
    ]
    if any(notable_over_replicas(row, top) for row in report["table"] for top in tops_shown(report)):
        sentences[0] += "; those marked “seeds” are over images and replicas, so they also cover other seeds"
    if len(report["replicas"]) > 1:
        sentences.append("“Best” is the paper's choice of a single model, explained below the table")
    if has_papers_classes(report):
        sentences.append("“Paper” is the paper's error on ImageNet, for one model that of its best one")
    return ". ".join(sentences) + "."


def heat_map(report: Report, top: Top) -> dict[str, Any]:
    """Return the table by number of models and crop policy; ``heat`` is the strength of a cell's colour in percent."""
    rows = report["table"]
    errors = [row["top1_error"] if top == "top1" else row["top5_error"] for row in rows]
    least, span = min(errors), max(errors) - min(errors)
    columns = {row["policy"]: crops_in_words(row) for row in rows}
    cells = {
        (row["models"], row["policy"]): {
            "error": f"{error:.{decimals(report)}f}",
            "heat": round(STRONGEST_PERCENT * (error - least) / span) if span else 0,
            "details": _details(report, row, top),
        }
        for row, error in zip(rows, errors, strict=True)
    }
    return {
        "name": f"Top-{top[-1]} error, %",
        "columns": list(columns.values()),
        "rows": [
            {"models": models, "cells": [cells[models, policy] for policy in columns]}
            for models in sorted({row["models"] for row in rows})
        ],
    }


def _details(report: Report, row: TableRow, top: Top) -> list[str]:
    """Return the small lines of a cell: intervals, the best one of the single models, the paper's error."""
    digits = decimals(report)
    details = [_range(row["top1_ci95"] if top == "top1" else row["top5_ci95"], digits)]
    if wide := notable_over_replicas(row, top):
        details.append(f"seeds {_range(wide, digits)}")
    best = chosen_model_error(report, row, top)
    if best is not None:
        details.append(f"best {best:.{digits}f}")
    if top == "top5" and has_papers_classes(report) and row["paper_top5_error"] is not None:
        which = "paper, best" if row["models"] == 1 else "paper"
        details.append(f"{which} {row['paper_top5_error']:.2f}")
    return details


def _range(bounds: Sequence[float], digits: int) -> str:
    """Format an interval as narrow as a phone needs it."""
    return f"{bounds[0]:.{digits}f}\N{EN DASH}{bounds[1]:.{digits}f}"
