"""Tables on what an error costs, for report.md and the page."""

import math
from collections.abc import Iterator

from googlenet.evaluation.cascade import NEVER
from googlenet.evaluation.temperature import FEWEST_IMAGES
from pipelines.job.console import count
from pipelines.report.certainty import Table
from pipelines.report.columns import crops_text, interval, signed_interval
from pipelines.report.schema import Report
from pipelines.report.schema_of_spending import BudgetRow, MeasuredCost, SpendingRow
from pipelines.run.predictions import EvaluatedEnsemble
from pipelines.run.view_probabilities import ALL_VIEWS, kept_images

WAYS = {
    "replicas": "more replicas",
    "views": "more crops, one replica",
    "replicas_and_views": "more of both",
    "chosen_views": "chosen views, all replicas",
    "cascade": "cascade",
    "soup": "soup of weights",
    "student": "student",
}
SOUP_HEADINGS = ("soup", "crops", "top-1 error %", "95 % interval", "against one replica", "95 % interval")
HEADINGS = ("way", "passes", "seconds", "top-1 error %", "95 % interval")
BUDGET_HEADINGS = ("budget", "passes", "seconds", "saved %", "lost %", "top-1 error %", "change", "95 % interval")


def spending_tables(report: Report, cost: MeasuredCost) -> list[Table]:
    """Return the tables on the efficient ways, the budgets and the soups; none for a report of an earlier version."""
    if not report.get("spending"):
        return []
    tables = [Table("The best answer for the cost", about_spending(report), HEADINGS, efficient_cells(report, cost))]
    if report.get("budgets"):
        tables.append(Table("", about_budgets(report), BUDGET_HEADINGS, list(budget_cells(report, cost))))
    if report.get("soups"):
        tables.append(Table("", about_soups(report), SOUP_HEADINGS, list(soup_cells(report))))
    return tables


def about_spending(report: Report) -> str:
    """Return what the points are, and on which images they were judged."""
    text = (
        "The efficient ways to spend forward passes: no other has as few passes and as low an error. They were picked "
        "on these very images, so their errors are somewhat too low. Passes are means per image, of which equal "
        "views are computed once; seconds are passes at the speed of full batches measured here, and a cascade's first "
        "stages take longer per pass: its answers (--budget) say how long they took."
    )
    is_student = any(row["way"] == "student" for row in report["spending"])
    if is_student:
        text += f" Ways other than the student are those of its teacher, on the same images.{_about_pass_cost(report)}"
        text += _about_older_passes(report)
    judged = {row["images"] for row in report["spending"] if row["way"] in ("chosen_views", "cascade")}
    if not judged:  # of a student, they would be its teacher's, and of its evaluation
        return text if is_student else f"{text} {_about_missing_views(report)}"
    if judged != {report["images"]}:
        text += (
            f" Chosen views and the cascade were judged on {count(min(judged), 'image')} with kept views; the ways are "
            "compared by their differences from all passes on the same images."
        )
    return text


def _about_pass_cost(report: Report) -> str:
    for row in report["spending"]:
        if cost := row.get("pass_cost"):
            return f" A pass of the teacher counts as {cost:.2g} of the student, as its multiplications do."
    return ""


def _about_older_passes(report: Report) -> str:
    """Say if passes of the teacher are of an earlier version: all are counted where the student has equal views."""
    shares: dict[str, dict[int, float]] = {"student": {}, "teacher": {}}
    for row in report["spending"]:
        if row["way"] in ("student", "replicas", "views", "replicas_and_views"):
            of = "student" if row["way"] == "student" else "teacher"
            shares[of][row["crops"]] = row["passes"] / row.get("pass_cost", 1.0) / (row["models"] * row["crops"])
    ours, theirs = shares["student"], shares["teacher"]
    if any(ours[crops] < 1 and math.isclose(theirs[crops], 1) for crops in ours.keys() & theirs.keys()):
        return " The teacher's passes are too high: an earlier version counted equal views each time."
    return ""


def _about_missing_views(report: Report) -> str:
    """Return why nothing was chosen: no views are kept, or those of too few images."""
    ensemble = EvaluatedEnsemble.from_dict(dict(report["ensemble"]))
    kept, reason = kept_images(ensemble, report["images"]), ""
    if ALL_VIEWS not in ensemble.policies:
        reason = f": an evaluation with {ALL_VIEWS} crops keeps them"
    elif report["images"] < FEWEST_IMAGES:
        reason = f": it has {count(report['images'], 'image')}"
    elif kept < FEWEST_IMAGES:
        reason = f": with so many classes, there is room for {count(kept, 'image')} only"
    need = f"need probabilities of single views of {FEWEST_IMAGES} images or more, which this run does not keep"
    return f"Chosen views and the cascade {need}{reason}."


def about_budgets(report: Report) -> str:
    """Return how the budgets were judged."""
    row = report["budgets"][0]
    where = (
        "fitted on the training run's validation images, and judged on these"
        if row["judged_on"] == "other_images"
        else "for each fold of the images fitted on the other folds"
    )
    promises = [
        f"{row['promised_points']:.2g} % ({row['budget']})" for row in report["budgets"] if "promised_points" in row
    ]
    promise = (
        f"On at most {' and '.join(promises)} of images like those that it was fitted on, on average, it may be wrong "
        f"where all passes are right{_why_no_less(report)}."
        if promises
        else "The thresholds were fitted by an earlier version, without a guarantee."
    )
    return (
        "The cascade adds replicas, then views, until the calibrated probability of the answer exceeds a threshold. "
        f"{promise} Views, temperatures and the threshold are {where}."
    )


def _why_no_less(report: Report) -> str:
    few = any(row.get("promised_points", 0.0) > row["within_points"] for row in report["budgets"])
    return "; so few images to fit on allow no smaller promise" if few else ""


def about_soups(report: Report) -> str:
    """Return what the soups are, and how the greedy one was chosen and judged."""
    return (
        "A soup is one network, the average of the replicas' weights: of all of them (uniform), or of those with which "
        "the error of one crop falls (greedy). Each fold of the images is judged with the greedy soup that the other "
        f"folds chose; all of them choose {_members(report)}. Differences are from the mean error of one replica."
    )


def _members(report: Report) -> str:
    members = next(row["members"] for row in report["soups"] if row["soup"] == "greedy")
    return f"{members[0]} alone" if len(members) == 1 else " + ".join(members)


def soup_cells(report: Report) -> Iterator[tuple[str, ...]]:
    """Yield the cells of the soups."""
    for row in report["soups"]:
        yield (
            row["soup"],
            crops_text(row),
            f"{row['top1_error']:.2f}",
            interval(row["top1_ci95"]),
            f"{row['top1_difference']:+.2f}",
            signed_interval(row["top1_difference_ci95"]),
        )


def efficient_cells(report: Report, cost: MeasuredCost) -> list[tuple[str, ...]]:
    """Return the cells of the efficient ways, the cheapest first."""
    rows = sorted((row for row in report["spending"] if row["efficient"]), key=lambda row: row["passes"])
    return [
        (
            _what(row),
            f"{row['passes']:.1f}",
            _seconds(row["passes"], cost),
            f"{row['top1_error']:.2f}",
            interval(row["top1_ci95"]),
        )
        for row in rows
    ]


def _what(row: SpendingRow) -> str:
    if "soup" in row:
        return f"{row['soup']} soup x {row['crops']}"
    if row["way"] == "student":
        return f"student x {row['crops']}" if row["models"] == 1 else f"{row['models']} students x {row['crops']}"
    if "budget" in row:
        return f"cascade, {row['budget']}"
    if "threshold" in row:
        return f"cascade, {_until(row['threshold'])}"
    return f"{row['models']} x {row['crops']}" + (" chosen" if row["way"] == "chosen_views" else "")


def _until(threshold: float) -> str:
    """Return when a cascade stops, with two digits of what is missing to 100 %: thresholds lie close to it."""
    if threshold in (0, NEVER):
        return "all passes" if threshold else "first pass"
    digits = max(0, 1 - math.floor(math.log10(100 * (1 - threshold))))
    return f"until {100 * threshold:.{digits}f} % sure"


def budget_cells(report: Report, cost: MeasuredCost) -> Iterator[tuple[str, ...]]:
    """Yield the cells of the budgets."""
    row: BudgetRow
    for row in report["budgets"]:
        yield (
            row["budget"],
            f"{row['passes']:.1f} of {row['all_passes']:.0f}",
            _seconds(row["passes"], cost),
            f"{row['saving']:.1f}",
            f"{row['lost']:.2f}" if "lost" in row else "",
            f"{row['top1_error']:.2f}",
            f"{row['top1_difference']:+.2f}",
            signed_interval(row["top1_difference_ci95"]),
        )


def _seconds(passes: float, cost: MeasuredCost) -> str:
    return f"{passes * cost['seconds_per_pass']:.3g}"
