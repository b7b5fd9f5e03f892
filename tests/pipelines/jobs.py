"""Calls of the main job, and its report, as tests need them."""

import json
from dataclasses import fields
from pathlib import Path

from pipelines.run.recipe import Recipe
from pipelines.train_ensemble import Arguments
from pipelines.training.options import WorkerOptions


def arguments(run: Path, recipe: Recipe, **options: object) -> Arguments:
    of_workers = {field.name: options.pop(field.name) for field in fields(WorkerOptions) if field.name in options}
    workers = WorkerOptions(**of_workers)  # type: ignore[arg-type]
    return Arguments(fields=recipe, run_dir=str(run), workers=workers, **options)  # type: ignore[arg-type]


def report_of(run: Path) -> dict[str, list[dict[str, float]]]:
    report: dict[str, list[dict[str, float]]] = json.loads((run / "report/report.json").read_text())
    return report
