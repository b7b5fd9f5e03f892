"""The report as one self-contained HTML file: no server, no network, no script."""

from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipelines.report.schema import Report
from pipelines.run.storage import short_name

TEMPLATE = "page.html.jinja"
# Colour of the highest error; text on it must be readable on light and on dark pages.
STRONGEST_PERCENT = 55
CAPTIONS = {
    "error_by_models": ("Error by the number of models", "Mean over all ensembles of a size."),
    "learning_curves": ("Learning curves", "One centre crop of each validation image, after each epoch."),
    "views": ("Which views help", "Averaged over these views only."),
    "reliability": ("Reliability", "All models, most crops. On the dashed line, confidence equals accuracy."),
    "confusion": ("Confusion", "All models, most crops; confusion.csv has every count."),
    "class_errors": ("Errors by class", "All models, most crops."),
    "disagreement": ("Disagreement of the replicas", "Most crops."),
    "diversity": ("Gain against disagreement", "Each dot is a pair of replicas."),
}


def report_page(
    report: Report,
    cost: dict[str, Any],
    pictures: dict[str, str],
    examples: dict[str, Any],
    notes: list[str],
) -> str:
    """Return the page.

    Args:
        report: content of report.json.
        cost: content of cost.json.
        pictures: SVG elements by name.
        examples: ``image_id``, ``strips`` and ``mistakes`` of :mod:`pipelines.report.example_images`.
        notes: remarks on the table.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        report=report,
        cost=cost,
        title=_title(report),
        heat_maps=[heat_map(report, "top1"), heat_map(report, "top5")],
        figures=[
            {"name": name, "title": title, "text": text, "svg": pictures[name]}
            for name, (title, text) in CAPTIONS.items()
            if name in pictures
        ],
        examples=examples,
        notes=notes,
    )


def _title(report: Report) -> str:
    recipe = report.get("run", {}).get("recipe", {})
    data = (recipe or report.get("run", {}).get("evaluation", {})).get("data", "")
    name = short_name(str(data))
    replicas = len(report["ensemble"]["replicas"])
    return f"{replicas} GoogLeNet{'s' if replicas > 1 else ''} on {name or 'images'}"


def heat_map(report: Report, top: Literal["top1", "top5"]) -> dict[str, Any]:
    """Return the table by number of models and crop policy; ``heat`` is the strength of a cell's colour in percent."""
    rows = report["table"]
    error_key: Literal["top1_error", "top5_error"] = "top1_error" if top == "top1" else "top5_error"
    interval_key: Literal["top1_ci95", "top5_ci95"] = "top1_ci95" if top == "top1" else "top5_ci95"
    errors = [row[error_key] for row in rows]
    least, span = min(errors), max(errors) - min(errors)
    policies = list(dict.fromkeys((row["policy"], row["crops"]) for row in rows))
    cells = {
        (row["models"], row["policy"]): {
            "error": row[error_key],
            "low": row[interval_key][0],
            "high": row[interval_key][1],
            "paper": row["paper_top5_error"] if top == "top5" else None,
            "heat": round(STRONGEST_PERCENT * (row[error_key] - least) / span) if span else 0,
        }
        for row in rows
    }
    return {
        "name": f"Top-{top[-1]} error, %",
        "columns": [
            f"{crops} crop{'s' if crops > 1 else ''}" + ("" if policy == str(crops) else f" ({policy} px)")
            for policy, crops in policies
        ],
        "rows": [
            {"models": models, "cells": [cells[models, policy] for policy, _ in policies]}
            for models in sorted({row["models"] for row in rows})
        ],
    }
