"""The complete report in Markdown; pictures are linked by file name."""

from collections.abc import Collection, Iterable

from pipelines.job.console import count
from pipelines.report.certainty import (
    abstention_tables,
    apart_tables,
    calibration_table,
    markdown_sections,
    temperature_tables,
)
from pipelines.report.columns import (
    crops_in_words,
    crops_text,
    interval,
    signed_interval,
    table_columns,
    tops_shown,
)
from pipelines.report.markdown_tables import code, markdown_table, plain
from pipelines.report.page import CAPTIONS
from pipelines.report.remarks import about_mistakes, headline, notes
from pipelines.report.schema import Report
from pipelines.report.schema_of_spending import MeasuredCost
from pipelines.report.tables_of_spending import spending_tables

CLASSES_SHOWN = 20
MISTAKES_SHOWN = 10


def markdown(report: Report, cost: MeasuredCost, facts: dict[str, str], pictures: Collection[str]) -> str:
    """Return the complete report.

    Args:
        report: content of report.json.
        cost: content of cost.json.
        facts: provenance of the run, by name.
        pictures: names of the pictures that were drawn; the PNG files lie beside the report.
    """
    sections = [
        f"# {headline(report)}",
        _list(
            f"{name}: {code(value) if name.split()[-1] in ('command', 'commit') else plain(value)}"
            for name, value in facts.items()
        ),
        "## Models x crops",
        markdown_columns(report, cost),
        _list(map(plain, notes(report))),
        cost_remark(report, cost),
        _pictures(pictures, "error_by_models", "learning_curves"),
        *markdown_sections(spending_tables(report, cost)),
        _pictures(pictures, "spending"),
        "## Compared with one model and the fewest crops",
        "Paired differences of top-1 error in percentage points, and the spread over the ensembles of a size.",
        _difference_table(report),
        "## Replicas",
        markdown_table(
            ("replica", "crops", *(f"top-{top[-1]} error %" for top in tops_shown(report))), _replicas(report)
        ),
        *_view_sections(report),
        _pictures(pictures, "views"),
        *markdown_sections([calibration_table(report), *temperature_tables(report)]),
        _pictures(pictures, "reliability"),
        *markdown_sections(abstention_tables(report)),
        _pictures(pictures, "selective"),
        *markdown_sections(apart_tables(report)),
        *_diversity_sections(report),
        _pictures(pictures, "disagreement", "diversity"),
        *_class_sections(report),
        _pictures(pictures, "class_errors", "confusion"),
        *_mistakes_section(report),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def markdown_columns(report: Report, cost: MeasuredCost, sizes: Collection[int] = ()) -> str:
    """Return the table with all columns; of the ensemble sizes in ``sizes``, if there are any."""
    columns = table_columns(report, cost)
    rows = zip(*(column.cells for column in columns), strict=True)
    kept = [cells for row, cells in zip(report["table"], rows, strict=True) if not sizes or row["models"] in sizes]
    return markdown_table([column.heading for column in columns], kept)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _pictures(drawn: Collection[str], *names: str) -> str:
    return "\n\n".join(f"![{CAPTIONS[name][0]}]({name}.png)" for name in names if name in drawn)


def cost_remark(report: Report, cost: MeasuredCost) -> str:
    """Return what the columns of cost and seconds mean, in a sentence."""
    once = ", which computes equal views once" if "computed_passes" in report["table"][0] else ""
    rate = count(round(cost["passes_per_second"] or 0), "pass", "passes")
    return (
        f"Cost is in forward passes per image, seconds are the time of one predictor per image{once} "
        f"({rate} per second, {cost['arithmetic']})."
    )


def _difference_table(report: Report) -> str:
    rows = report["table"]
    wide = [row.get("top1_difference_ci95_images_and_replicas") for row in rows]
    columns = {
        "models": [str(row["models"]) for row in rows],
        "crops": [crops_text(row) for row in rows],
        "difference": [f"{row['top1_difference']:+.2f}" for row in rows],
        "95 % interval": [signed_interval(row["top1_difference_ci95"]) for row in rows],
        "with other seeds": [signed_interval(bounds) for bounds in wide if bounds],
        "ensembles": [str(row["ensembles"]) for row in rows],
        "lowest - highest %": [interval(row["top1_range"]) for row in rows],
    }
    shown = {heading: cells for heading, cells in columns.items() if cells}
    return markdown_table(list(shown), list(zip(*shown.values(), strict=True)))


def _replicas(report: Report) -> list[tuple[str, ...]]:
    return [
        (
            replica["replica"],
            crops_text(row),
            *(f"{row['top1_error'] if top == 'top1' else row['top5_error']:.2f}" for top in tops_shown(report)),
        )
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
            signed_interval(row["top1_difference_ci95"]),
        )
        for row in report["pooling"]
    ]
    groups = [
        (
            group["group"],
            f"{group['top1_error']:.2f}",
            interval(group["top1_ci95"]),
            f"{group['top1_error_all_models']:.2f}",
            interval(group["top1_ci95_all_models"]),
        )
        for group in report["view_groups"]
    ]
    sections = [
        f"## Averaging or maximum over {crops_in_words(report['pooling'][0])}",
        "Top-1 error; the maximum is taken over the views of each model, then models are averaged.",
        markdown_table(("models", "average %", "maximum %", "difference", "95 % interval"), pooling),
    ]
    if groups:
        sections += [
            "## Which views help",
            "Top-1 error of the average over all views of a kind, for one model and for all models.",
            markdown_table(("views", "one model %", "95 % interval", "all models %", "95 % interval"), groups),
        ]
    return sections


def _diversity_sections(report: Report) -> list[str]:
    pairs = report["diversity"]["pairs"]
    if not pairs:
        return []
    names = report["ensemble"]["replicas"]
    rows = [
        (
            " and ".join(names[place] for place in pair["replicas"]),
            f"{pair['disagreement']:.2f}",
            f"{pair['gain']:+.2f}",
        )
        for pair in pairs
    ]
    return [
        "## Diversity",
        "Images that two replicas answer differently, and their mean error minus that of their average (most crops).",
        markdown_table(("replicas", "disagreement %", "gain"), rows),
    ]


def _class_sections(report: Report) -> list[str]:
    worst = sorted(
        (c for c in report["class_errors"] if c["images"]), key=lambda c: (-(c["top1_error"] or 0.0), c["class"])
    )
    classes = [
        (row["class"], str(row["images"]), f"{row['top1_error']:.2f}", row["most_often_taken_for"] or "")
        for row in worst[:CLASSES_SHOWN]
    ]
    shown = f"The {CLASSES_SHOWN} worst of {len(worst):,}" if len(worst) > CLASSES_SHOWN else "All"
    return [
        "## Classes",
        f"{shown} by top-1 error of all models with the most crops; confusion.csv has every count.",
        markdown_table(("class", "images", "top-1 error %", "most often taken for"), classes),
    ]


def _mistakes_section(report: Report) -> list[str]:
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
    return [
        "## Most confident mistakes",
        *filter(None, [about_mistakes(report, len(mistakes))]),
        markdown_table(("image", "label", "answer", "probability", "of the label"), mistakes),
    ]
