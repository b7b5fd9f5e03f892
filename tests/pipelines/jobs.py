"""Calls of the main job, and its report, as tests need them."""

import json
from pathlib import Path

from pipelines.run.recipe import Recipe
from pipelines.train_ensemble import Arguments


def arguments(run: Path, recipe: Recipe, **options: object) -> Arguments:
    return Arguments(fields=recipe, run_dir=str(run), **options)  # type: ignore[arg-type]


def report_of(run: Path) -> dict[str, list[dict[str, float]]]:
    report: dict[str, list[dict[str, float]]] = json.loads((run / "report/report.json").read_text())
    return report
