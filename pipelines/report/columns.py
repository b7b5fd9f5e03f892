"""Columns of the paper's table that suit a data set, and their cells, as text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from googlenet.evaluation.crops import is_chosen
from pipelines.job.console import count, two_digits
from pipelines.report.fields import CropPolicy
from pipelines.report.schema import Report, TableRow
from pipelines.report.schema_of_provenance import Run
from pipelines.report.schema_of_spending import MeasuredCost

# Of ten classes or fewer, five answers are at least half: a top-5 error says little.
MOST_CLASSES_WITHOUT_TOP5 = 10
# The paper's figures are for ImageNet, and stand beside those of its classes: as many, and called by its names.
CLASSES_OF_IMAGENET = 1000
WORDNET_ID = re.compile(r"n\d{8}(?!\d)")
SOME_NAMES = {"tench", "goldfish", "stinkhorn", "bolete"}
# The interval over images and replicas is shown beside that over images where it is wider by more than this factor.
NOTABLY_WIDER = 1.25
LEAST_IN_MILLISECONDS = 0.01
MANY_IMAGES = 10_000

Top = Literal["top1", "top5"]


@dataclass(frozen=True)
class Column:
    """A column: its heading, a cell for each row of the table, and its short heading if the terminal shows it.

    A narrow terminal gives up those of the highest ``rank`` first.
    """

    heading: str
    cells: list[str]
    short: str = ""
    rank: int = 0


def tops_shown(report: Report) -> list[Top]:
    """Return the kinds of error that are worth showing; report.json has both."""
    return ["top1"] if report["classes"] <= MOST_CLASSES_WITHOUT_TOP5 else ["top1", "top5"]


def has_papers_classes(report: Report) -> bool:
    """Return whether the images are of ImageNet's 1,000 classes, so that the paper's errors may stand beside ours.

    Networks of 1,000 classes may be evaluated on images of ten. A random sample of n images has 0.63 n classes or more.
    """
    classes = report["classes"]
    if classes != CLASSES_OF_IMAGENET or classes_seen(report) < min(classes, report["images"]) / 2:
        return False
    names = report["ensemble"]["classes"]
    # A list of names may have synonyms: "tench, Tinca tinca".
    words = {name.partition(",")[0].strip().lower() for name in names}
    ids = {match[0] for name in names if (match := WORDNET_ID.match(name))}
    return len(ids) == CLASSES_OF_IMAGENET or words >= SOME_NAMES


def classes_seen(report: Report) -> int:
    """Return of how many of the classes there are images."""
    return sum(row["images"] > 0 for row in report["class_errors"])


def has_given_weights(run: Run | None) -> bool:
    """Return whether a run evaluates weights from other sources: nobody knows whether they differ in their seeds only.

    An evaluation of a training run's replicas names that run.
    """
    evaluation = run.get("evaluation") if run else None
    return evaluation is not None and "run" not in evaluation


def differ_beyond_seeds(run: Run | None) -> bool:
    """Return whether replicas differ in more than their seeds, or may: no interval over other seeds is drawn of them.

    Source: a seventh model that is wider, and sampling ranges of each, as in the paper's section 7.
    """
    recipe = (run.get("recipe") if run else None) or {}
    has_wide_one, ranges = recipe.get("wide_replica_width") is not None, recipe.get("areas") or ()
    return has_given_weights(run) or has_wide_one or len(ranges) > 1


def crops_text(row: CropPolicy) -> str:
    """Return the number of crops, with their scales if the user chose those, or as chosen on a run's images."""
    if is_chosen(row["policy"]):
        return f"{row['crops']} (best)"
    return str(row["crops"]) if row["policy"] == str(row["crops"]) else f"{row['crops']} ({row['policy']} px)"


def crops_in_words(row: CropPolicy, one: str = "1") -> str:
    """Return the number of crops with their noun, and what crops_text says of them: 72 crops (96+120 px)."""
    _, _, kind = crops_text(row).partition(" ")
    number = f"{one} crop" if row["crops"] == 1 else count(row["crops"], "crop")
    return f"{number} {kind}".rstrip()


def decimals(report: Report) -> int:
    """Return the decimals of errors in percent, for readers in a hurry: two where a hundredth can be told."""
    return 2 if report["images"] >= MANY_IMAGES else 1


def interval(bounds: Sequence[float]) -> str:
    """Format an interval of errors."""
    return f"{bounds[0]:.2f} - {bounds[1]:.2f}"


def signed_interval(bounds: Sequence[float]) -> str:
    """Format an interval of differences; a dash where all images agree, since they then say nothing of others."""
    return "-" if bounds[0] == bounds[1] else f"{bounds[0]:+.2f} to {bounds[1]:+.2f}"


def over_replicas(row: TableRow, top: Top) -> list[float] | None:
    """Return the interval over images and replicas; None with too few replicas, or in a report of earlier versions."""
    # Two branches, since the keys of a TypedDict are literals.
    return row.get("top1_ci95_images_and_replicas") if top == "top1" else row.get("top5_ci95_images_and_replicas")


def notable_over_replicas(row: TableRow, top: Top) -> list[float] | None:
    """Return the interval over images and replicas where it is notably wider than that over images; else None."""
    wide, narrow = over_replicas(row, top), row["top1_ci95"] if top == "top1" else row["top5_ci95"]
    return wide if wide and wide[1] - wide[0] > NOTABLY_WIDER * (narrow[1] - narrow[0]) else None


def chosen_model_error(report: Report, row: TableRow, top: Top) -> float | None:
    """Return the error of the replica chosen as the paper chose its one model; None for more models, or no choice."""
    if row["models"] > 1 or len(report["replicas"]) == 1:
        return None
    [chosen] = [kept for kept in report["single_model"]["rows"] if kept["policy"] == row["policy"]]
    return chosen["top1_error"] if top == "top1" else chosen["top5_error"]


def computed_passes(row: TableRow) -> float:
    """Return the forward passes computed per image; all of them for a report of an earlier version."""
    return row.get("computed_passes", float(row["forward_passes"]))


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}" if seconds >= LEAST_IN_MILLISECONDS else two_digits(seconds)


def table_columns(report: Report, cost: MeasuredCost) -> list[Column]:
    """Return the columns of the table, with a cell for each of its rows."""
    rows = report["table"]
    columns = [
        Column("models", [str(row["models"]) for row in rows], "models"),
        Column("crops", [crops_text(row) for row in rows], "crops"),
        Column("cost", [str(row["forward_passes"]) for row in rows]),
        Column("seconds", [_seconds(computed_passes(row) * cost["seconds_per_pass"]) for row in rows]),
    ]
    for top in tops_shown(report):
        columns += _of_errors(report, top)
    if has_papers_classes(report):
        papers = [_number(row["paper_top5_error"]) for row in rows]
        columns.append(Column("paper (one model: its best), top-5 %", papers, "paper"))
    return [column for column in columns if any(column.cells)]


def _of_errors(report: Report, top: Top) -> list[Column]:
    rows, kind = report["table"], f"top-{top[-1]}"
    errors = [row["top1_error"] if top == "top1" else row["top5_error"] for row in rows]
    narrow = [row["top1_ci95"] if top == "top1" else row["top5_ci95"] for row in rows]
    wide = [over_replicas(row, top) for row in rows]
    # The terminal has room for the intervals of one kind of error.
    short = ("95 % interval", "other seeds") if top == "top1" else ("", "")
    return [
        Column(f"{kind} error %", [_number(error) for error in errors], kind),
        Column("95 % interval", [interval(bounds) for bounds in narrow], short[0], rank=1),
        Column("with other seeds", [interval(bounds) if bounds else "" for bounds in wide], short[1], rank=3),
        Column(f"best one, {kind} %", [_number(chosen_model_error(report, row, top)) for row in rows], "best", rank=2),
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
