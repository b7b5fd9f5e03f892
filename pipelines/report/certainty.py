"""Tables on how sure the answers are, for report.md and for the page.

Calibration, sets of classes, answers left to people, and photographs of something else.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

from googlenet.evaluation.conformal import fewest_scores
from pipelines.report.columns import crops_text, interval
from pipelines.report.markdown_tables import markdown_table
from pipelines.report.remarks import about_sets, about_temperatures
from pipelines.report.schema import Report
from pipelines.report.schema_of_certainty import ScoreChange, SetRow, TemperatureRow

CLASSES_SHOWN = 20
SHOWN_PERCENT = (100.0, 90.0, 80.0, 50.0)
SCORES: tuple[tuple[str, Callable[[TemperatureRow], ScoreChange]], ...] = (
    ("negative log-likelihood", lambda row: row["negative_log_likelihood"]),
    ("Brier score", lambda row: row["brier_score"]),
    ("expected calibration error", lambda row: row["expected_calibration_error"]),
)


@dataclass(frozen=True)
class Table:
    """A table, a sentence or two about it, and its title; empty for one that belongs to the table before."""

    title: str
    text: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def markdown_sections(tables: Sequence[Table]) -> list[str]:
    """Return tables as sections of report.md."""
    return [
        part
        for table in tables
        for part in (
            f"## {table.title}" if table.title else "",
            table.text,
            markdown_table(table.headings, table.rows),
        )
    ]


def calibration_table(report: Report) -> Table:
    """Return the scores of one model and of all models, as averaged."""
    rows = [
        (
            str(row["models"]),
            crops_text(row),
            f"{row['negative_log_likelihood']:.4f}",
            f"{row['brier_score']:.4f}",
            f"{row['expected_calibration_error']:.4f}",
        )
        for row in report["calibration"]
    ]
    return Table("Calibration", "", ("models", "crops", *(name for name, _ in SCORES)), rows)


def temperature_tables(report: Report) -> list[Table]:
    """Return for each score how a temperature changes it; none for too few images, or a report of earlier versions."""
    if not report.get("temperatures"):
        return []
    texts = (about_temperatures(report), "", "")
    return [
        Table(
            "" if place else "With a temperature",
            text,
            ("models", "crops", "temperature", f"{name}, as averaged", "with the temperature", "difference"),
            [
                (str(row["models"]), crops_text(row), f"{row['temperature']:.3f}", *_change(score(row)))
                for row in report["temperatures"]
            ],
        )
        for place, (text, (name, score)) in enumerate(zip(texts, SCORES, strict=True))
    ]


def _change(score: ScoreChange) -> tuple[str, str, str]:
    before, after = (
        f"{value:.3f} ({low:.3f} - {high:.3f})"
        for value, (low, high) in (
            (score["before"], score["before_ci95"]),
            (score["after"], score["after_ci95"]),
        )
    )
    low, high = score["difference_ci95"]
    return before, after, f"{score['difference']:+.3f} ({low:+.3f} to {high:+.3f})"


def abstention_tables(report: Report) -> list[Table]:
    """Return the tables on sets of classes and on answers left to people."""
    if not report.get("prediction_sets") or not report.get("selective"):
        return []
    return [_table_of_sets(report), _coverage_by_class(report["prediction_sets"]), _table_of_shares(report)]


def _table_of_sets(report: Report) -> Table:
    rows = [
        (
            f"{100 * row['coverage']:g}",
            f"{row['empirical_coverage']:.1f}",
            interval(row["empirical_coverage_ci95"]),
            f"{row['mean_size']:.2f}",
            f"{row['single_answers']:.1f}",
        )
        for row in report["prediction_sets"]
    ]
    penalty = report["prediction_sets"][0].get("penalty", 0.0)
    return Table(
        "Sets that hold the label",
        "All models, most crops, with the temperature. On images like those of its threshold, a set holds the label as "
        "often as promised, on average. "
        + about_sets(report)
        + (f" Each rank after the first costs a class {penalty:g}." if penalty else "")
        + _about_too_few_images(report["prediction_sets"])
        + about_share(report),
        ("promised %", "held %", "95 % interval", "mean classes", "single answers %"),
        rows,
    )


def _about_too_few_images(sets: Sequence[SetRow]) -> str:
    """Return which coverages need more images than a threshold was fitted on, in a sentence; empty if none does."""
    needed = [
        f"{100 * row['coverage']:g} % needs {fewest_scores(row['coverage']):,} images"
        for row in sets
        if fewest_scores(row["coverage"]) > row.get("fitted_images", math.inf)
    ]
    if not needed:
        return ""
    fewest = min(row["fitted_images"] for row in sets)
    rest = f"sets whose threshold was fitted on fewer ({fewest:,}) hold all classes"
    return f" A promise of {' and one of '.join(needed)}: {rest}."


def _table_of_shares(report: Report) -> Table:
    """Return the errors that remain where the least sure share of the images is left to people."""
    rows = [
        (
            _measure(row["measure"]),
            f"{row['area']:.2f}",
            _of_area(row["area_ci95"], interval(row["area_ci95"])),
            *(
                f"{error:.2f}"
                for percent in SHOWN_PERCENT
                for answered, error in row["remaining_errors"]
                if answered == percent
            ),
        )
        for row in report["selective"]
    ]
    return Table(
        "Leaving the least sure images to people",
        f"Top-1 error among the images that are answered; the area is its mean over all shares."
        f"{_best(report)}{about_share(report)}",
        ("measure", "area %", "95 % interval", *(f"{percent:g} % answered" for percent in SHOWN_PERCENT)),
        rows,
    )


def about_share(report: Report) -> str:
    """Return of how many images the answers left to people, and the sets, are, in a sentence; empty if of all."""
    judged = report["selective"][0].get("images", report["images"])
    if judged == report["images"]:
        return ""
    return f" On {judged:,} of the {report['images']:,} images, chosen by a hash of their names."


def apart_tables(report: Report) -> list[Table]:
    """Return the table on photographs of something else, if there were any."""
    if not report.get("out_of_distribution"):
        return []
    rows = [
        (
            row["data"],
            str(row["images"]),
            _measure(row["measure"]),
            f"{row['area_under_roc']:.3f}",
            _of_area(row["area_under_roc_ci95"], "{:.3f} - {:.3f}".format(*row["area_under_roc_ci95"])),
            f"{row['false_positives']:.1f}",
            interval(row["false_positives_ci95"]),
        )
        for row in report["out_of_distribution"]
    ]
    text = (
        "All models, most crops, as averaged. The area under the ROC curve is the chance that an image of something "
        "else is less sure than one of these; false positives are those that pass if 95 % of these do."
    )
    headings = ("folder", "images", "measure", "area", "95 % interval", "false positives %", "95 % interval")
    return [Table("Photographs of something else", text, headings, rows)]


def certainty_tables(report: Report) -> list[Table]:
    """Return all tables for the page, which draws the calibration without a temperature."""
    return [*temperature_tables(report), *abstention_tables(report), *apart_tables(report)]


def _of_area(bounds: Sequence[float], text: str) -> str:
    """Return ``text`` for an interval of an area; a dash for one without width, which does not show what is unknown."""
    low, high = bounds
    return text if low < high else "-"


def _measure(name: str) -> str:
    return name.replace("_", " ")


def _best(report: Report) -> str:
    """Return which measures sort best, in a sentence; empty where all are alike, such as without a mistake."""
    least = min(row["area"] for row in report["selective"])
    best = [_measure(row["measure"]) for row in report["selective"] if row["area"] == least]
    if len(best) == len(report["selective"]):
        return ""
    number = {2: "two", 3: "three"}[len(report["selective"])]
    which = "the one that sorts best here is the" if len(best) == 1 else "those that sort best here are"
    return f" Of the {number} measures, {which} {' and '.join(best)}."


def _coverage_by_class(sets: Sequence[SetRow]) -> Table:
    """Return how often the sets of each class's images hold it, the least covered first; sets have the same images."""
    rows = [
        (mean(row["empirical_coverage"] for row in of_class), of_class)
        for of_class in zip(*(row["classes"] for row in sets), strict=True)
    ]
    shown = sorted(rows, key=lambda row: (row[0], row[1][0]["class"]))[:CLASSES_SHOWN]
    which = (
        f"The {CLASSES_SHOWN} least covered of {len(rows):,} classes; report.json has all."
        if len(rows) > CLASSES_SHOWN
        else ""
    )
    return Table(
        "",
        f"By class; the promise is not for each class. {which}".rstrip(),
        ("class", "images", *(f"held % of {100 * row['coverage']:g}" for row in sets)),
        [
            (
                of_class[0]["class"],
                str(of_class[0]["images"]),
                *(f"{row['empirical_coverage']:.1f}" for row in of_class),
            )
            for _, of_class in shown
        ],
    )
