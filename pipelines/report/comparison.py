"""Comparison of two finished runs: their settings, and their errors paired by image."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from googlenet.evaluation.metrics import bootstrap_interval
from googlenet.network.arithmetic import Arithmetic
from pipelines.errors import UserError
from pipelines.job.circumstances import UNKNOWN
from pipelines.job.console import count, fitted
from pipelines.job.log import read_jobs
from pipelines.report.columns import signed_interval, tops_shown
from pipelines.report.numbers import numbers_about_answers
from pipelines.report.outcomes import read_outcomes, read_scores
from pipelines.report.schema import Report
from pipelines.run.differences import differences
from pipelines.run.directory import OUTCOMES, REPORT_JSON, read_report
from pipelines.run.predictions import digest_of_all
from pipelines.run.storage import Storage

CHANGE = "{name}: first {old!r}, second {new!r}"
COLUMNS = ("models x crops", "error", "first %", "second %", "difference", "95 % interval")
SCORE_COLUMNS = ("models x crops", "score", "first", "second", "difference", "95 % interval")
ANSWER_COLUMNS = ("number", "first", "second")
# The table has room for no more on a terminal of 80 columns.
SHORT_SCORES = {"negative_log_likelihood": "NLL"}
SHORT = 12
# Lines of text, and those of the table below them.
Part = tuple[list[str], list[str]]
PASSES = "passes/"
WITHOUT_PASSES = ", without passes, of which one report counts equal views each time"


@dataclass(frozen=True)
class Finished:
    """A finished run, from its run directory or from its files in MLflow.

    Attributes:
        name: as shown in the comparison.
        report: content of report.json.
        outcomes: see :func:`pipelines.report.outcomes.read_outcomes`.
        circumstances: provenance of its newest job; empty if unknown.
        evaluation: provenance of its evaluation, if evaluate_ensemble.py has evaluated it; empty otherwise.
        scores: see :func:`pipelines.report.outcomes.read_scores`.
    """

    name: str
    report: Report
    outcomes: dict[str, Any]
    circumstances: Mapping[str, Any]
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=lambda: {"image_id": []})

    @property
    def settings(self) -> dict[str, Any]:
        """The recipe, or the settings of an evaluation, what was evaluated, and the digest of the images."""
        kept = self.report.get("run", {})
        settings: dict[str, Any] = kept.get("recipe") or kept.get("evaluation") or {}
        ensemble = self.report["ensemble"]
        evaluated = {
            "evaluated_replicas": ensemble["replicas"],
            # One short name for all, since the digests of every replica differ between any two trainings.
            "evaluated_weights": digest_of_all(ensemble["weights_digests"])[:SHORT],
            "policies": ensemble["policies"],
            "crop_px": ensemble["crop_px"],
            "arithmetic": str(Arithmetic(**ensemble["arithmetic"])),
        }
        return {**settings, **evaluated, "dataset_digest": ensemble["dataset_digest"]}


def read_finished(run: Storage, name: str) -> Finished:
    """Read the report, the outcomes and the newest job of ``run``.

    Raises:
        UserError: it has no report.
    """
    if not (run.exists(REPORT_JSON) and run.exists(OUTCOMES)):
        raise UserError(f"{name} has no report to compare; finish it with the command that started it")
    jobs = read_jobs(run)
    report = read_report(run)
    newest: Mapping[str, Any] = jobs[-1] if jobs else {}
    return Finished(name, report, read_outcomes(run), newest, report.get("evaluated_by", {}), read_scores(run))


def comparison(first: Finished, second: Finished, columns: int = sys.maxsize) -> str:
    """Return what differs, and the paired difference of every cell, or why nothing can be paired, as text.

    Lines longer than ``columns`` break between words; those of tables stay as they are.
    """
    lines = [f"first:  {first.name}", f"second: {second.name}", "", "what differs:"]
    changed = differences(first.settings, second.settings, CHANGE)
    changed += _other_code(first.circumstances, second.circumstances, CHANGE)
    if first.evaluation or second.evaluation:
        ours, theirs = (run.evaluation or run.circumstances for run in (first, second))
        changed += _other_code(ours, theirs, f"evaluation: {CHANGE}")
    lines += [f"  {line}" for line in changed] or ["  nothing"]
    parts = [(lines, []), _cells(first, second), _scores(first, second), _about_answers(first, second)]
    shown = [[*(fitted(line, columns) for line in text), *table] for text, table in parts]
    return "\n\n".join("\n".join(lines) for lines in shown if lines)


def _other_code(first: Mapping[str, Any], second: Mapping[str, Any], line: str) -> list[str]:
    """Return a line for each difference in code or versions that both know; place and time change no result."""
    ours, theirs = _what_ran(first), _what_ran(second)
    both = [name for name in ours if name in theirs]
    return differences({name: ours[name] for name in both}, {name: theirs[name] for name in both}, line)


def _what_ran(start: Mapping[str, Any]) -> dict[str, Any]:
    """Return the code and the versions, as far as they are known."""
    named = {name: start.get(name, "") for name in ("commit", "code_digest")}
    return {name: value for name, value in {**named, **start.get("versions", {})}.items() if value not in ("", UNKNOWN)}


def _cells(first: Finished, second: Finished) -> Part:
    common, rows_first, rows_second = _common_images(first.outcomes, second.outcomes)
    tops = tuple(tops_shown(first.report))
    names = [name for name in first.outcomes if name in second.outcomes and name.startswith(tops)]
    if not common:
        ours, theirs = (len(run.outcomes["image_id"]) for run in (first, second))
        what = f"{count(ours, 'image')} in the first, {theirs:,} in the second"
        return [f"no pairs: the runs have no image in common ({what})"], []
    if not names:
        return ["no pairs: the runs have no crops in common, so no cell of their tables can be compared"], []
    first_wrong = 100 * np.stack([first.outcomes[name][rows_first] for name in names], axis=1)
    second_wrong = 100 * np.stack([second.outcomes[name][rows_second] for name in names], axis=1)
    low, high = bootstrap_interval(second_wrong - first_wrong)
    rows: list[tuple[str, ...]] = [COLUMNS]
    for at, name in enumerate(names):
        kind, _, cell = name.partition("_wrong/")
        means = first_wrong[:, at].mean(), second_wrong[:, at].mean()
        interval = signed_interval((low[at], high[at]))
        rows.append((cell, kind, f"{means[0]:.2f}", f"{means[1]:.2f}", f"{means[1] - means[0]:+.2f}", interval))
    return _about_images(first, second, len(common)), _aligned(rows)


def _scores(first: Finished, second: Finished) -> Part:
    """Return the scores of both, as averaged and with the temperature of each run, paired by image."""
    common, rows_first, rows_second = _common_images(first.scores, second.scores)
    sizes = {"1", *(str(len(run.report["ensemble"]["replicas"])) for run in (first, second))}
    names = [name for name in first.scores if name in second.scores and _models_in(name) in sizes]
    if not common or not names:
        return [], []
    ours = np.stack([first.scores[name][rows_first] for name in names], axis=1)
    theirs = np.stack([second.scores[name][rows_second] for name in names], axis=1)
    low, high = bootstrap_interval(theirs - ours)
    rows: list[tuple[str, ...]] = [SCORE_COLUMNS]
    for at, name in enumerate(names):
        kind, _, cell = name.partition("/")
        means = ours[:, at].mean(), theirs[:, at].mean()
        interval = "-" if low[at] == high[at] else f"{low[at]:+.4f} to {high[at]:+.4f}"
        numbers = (f"{means[0]:.4f}", f"{means[1]:.4f}", f"{means[1] - means[0]:+.4f}")
        rows.append((cell, SHORT_SCORES.get(kind, kind.replace("_", " ")), *numbers, interval))
    about = (
        f"scores on {count(len(common), 'image')} that both runs kept, as means over the ensembles of a size; "
        "calibrated with each run's own temperature; NLL is the negative log-likelihood:"
    )
    return [about], _aligned(rows)


def _about_answers(first: Finished, second: Finished) -> Part:
    """Return what both reports say of their answers: temperatures, sets, measures of doubt, budgets."""
    ours, theirs = (numbers_about_answers(run.report) for run in (first, second))
    names, without = [name for name in ours if name in theirs], ""
    if _count_passes_otherwise(first, second):
        names, without = [name for name in names if not name.startswith(PASSES)], WITHOUT_PASSES
    if not names:
        return [], []
    rows = [(name, f"{ours[name]:.4g}", f"{theirs[name]:.4g}") for name in names]
    about = f"answers, each run on its own images (names as in MLflow){without}:"
    return [about], _aligned([ANSWER_COLUMNS, *rows])


def _count_passes_otherwise(first: Finished, second: Finished) -> bool:
    """Return whether one report alone is of an earlier version, which counted equal views of an image each time."""
    return len({"computed_passes" in run.report["table"][0] for run in (first, second)}) == 2


def _models_in(score: str) -> str:
    """Return the number of models in the name of a score, such as ``brier_score/7x144``; the ids have none."""
    return score.partition("/")[2].partition("x")[0]


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows]


def _common_images(first: dict[str, Any], second: dict[str, Any]) -> tuple[list[str], list[int], list[int]]:
    where = {image_id: row for row, image_id in enumerate(second["image_id"])}
    rows = [row for row, image_id in enumerate(first["image_id"]) if image_id in where]
    common = [first["image_id"][row] for row in rows]
    return common, rows, [where[image_id] for image_id in common]


def _about_images(first: Finished, second: Finished, common: int) -> list[str]:
    lines = [
        f"errors on {count(common, 'image')} evaluated by both runs; differences are second minus first, paired;",
        "intervals are over these images, and say nothing of other seeds:",
    ]
    left_out = [
        f"{len(run.outcomes['image_id']) - common:,} of {run.name}"
        for run in (first, second)
        if len(run.outcomes["image_id"]) > common
    ]
    if left_out:
        lines.append(f"warning: left out, missing from the other run: {', '.join(left_out)}")
    if first.settings["dataset_digest"] != second.settings["dataset_digest"]:
        lines.append("warning: the data sets differ; images are paired by name")
    return lines
