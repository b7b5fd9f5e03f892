"""The report as short text: the headline, the table and its remarks for the terminal."""

from dataclasses import replace

from pipelines.job.console import fitted
from pipelines.report.columns import Column, table_columns, tops_shown
from pipelines.report.remarks import headline, notes
from pipelines.report.schema import Report
from pipelines.report.schema_of_spending import MeasuredCost

MOST_COLUMNS = 80
GAP = "  "


def table_text(report: Report, cost: MeasuredCost, whole: str, width: int = MOST_COLUMNS) -> str:
    """Return the headline, the table and the remarks on it, in lines of at most ``width`` characters.

    Of the ensemble sizes, one model and all of them are shown, as in the paper; ``whole`` is where the rest stands.
    """
    columns = _that_fit([_of_sizes_shown(report, column) for column in table_columns(report, cost)], width)
    cells = zip(*([column.short, *column.cells] for column in columns), strict=True)
    rows = [GAP.join(cell.rjust(_width(c)) for cell, c in zip(row, columns, strict=True)).rstrip() for row in cells]
    rows.insert(1, GAP.join("-" * _width(column) for column in columns))
    kinds = " and ".join(f"top-{top[-1]} error %" for top in tops_shown(report))
    about = f"{kinds}, mean over all ensembles of a size:"
    lines = [fitted(headline(report), width, ""), "", fitted(about, width, ""), *rows, ""]
    lines += [fitted(f"- {note}", width) for note in notes(report)]
    return "\n".join([*lines, f"all ensemble sizes, costs and intervals: {whole}"])


def _sizes_shown(report: Report) -> set[int]:
    return {1, report["table"][-1]["models"]}


def _of_sizes_shown(report: Report, column: Column) -> Column:
    sizes = _sizes_shown(report)
    cells = [cell for row, cell in zip(report["table"], column.cells, strict=True) if row["models"] in sizes]
    return replace(column, cells=cells)


def _that_fit(columns: list[Column], width: int) -> list[Column]:
    """Return the columns for a terminal of this width, without those of the highest rank if it is too narrow."""
    kept = [column for column in columns if column.short]
    while len(kept) > 1 and sum(map(_width, kept)) + len(GAP) * (len(kept) - 1) > width:
        highest = max(column.rank for column in kept)
        last = max(place for place, column in enumerate(kept) if column.rank == highest)
        del kept[last]
    return kept


def _width(column: Column) -> int:
    return max(map(len, [column.short, *column.cells]))
