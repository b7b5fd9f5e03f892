"""The sections of report.md on how sure the answers are: calibration, sets of classes, answers left to people."""

from pipelines.report.columns import crops_text, interval
from pipelines.report.markdown_tables import markdown_table
from pipelines.report.remarks import about_temperatures
from pipelines.report.schema import Report
from pipelines.report.schema_of_certainty import ScoreChange, SetRow


def calibration_sections(report: Report) -> list[str]:
    """Return the section on calibration, before and after the temperature."""
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
    headings = ("models", "crops", "negative log-likelihood", "Brier score", "expected calibration error")
    return ["## Calibration", markdown_table(headings, rows), *_temperature_sections(report)]


def _temperature_sections(report: Report) -> list[str]:
    if not report.get("temperatures"):
        return []
    rows = [
        (
            str(row["models"]),
            crops_text(row),
            f"{row['temperature']:.3f}",
            _change(row["negative_log_likelihood"]),
            _change(row["brier_score"]),
            _change(row["expected_calibration_error"]),
        )
        for row in report["temperatures"]
    ]
    scores = ("negative log-likelihood", "Brier score", "expected calibration error")
    text = f"{about_temperatures(report)} Before and after, and the difference with a 95 % interval over images."
    return [text, markdown_table(("models", "crops", "temperature", *scores), rows)]


def abstention_sections(report: Report) -> list[str]:
    """Return the sections on sets of classes and on answers left to people."""
    if not report.get("prediction_sets") or not report.get("selective"):
        return []
    sets = [
        (
            f"{100 * row['coverage']:g}",
            f"{row['empirical_coverage']:.1f}",
            interval(row["empirical_coverage_ci95"]),
            f"{row['mean_size']:.2f}",
            f"{row['single_answers']:.1f}",
            _least_covered(row),
        )
        for row in report["prediction_sets"]
    ]
    headings = ("promised %", "held %", "95 % interval", "mean classes", "single answers %", "least covered class")
    shown = (100.0, 90.0, 80.0, 50.0)
    selective = [
        (
            row["measure"].replace("_", " "),
            f"{row['area']:.2f}",
            interval(row["area_ci95"]),
            *(
                f"{error:.2f}"
                for percent in shown
                for answered, error in row["remaining_errors"]
                if answered == percent
            ),
        )
        for row in report["selective"]
    ]
    return [
        "## Sets that hold the label",
        "All models, most crops, with the temperature. A set holds the label as often as promised, on average.",
        markdown_table(headings, sets),
        "## Leaving the least sure images to people",
        "Top-1 error among the images that are answered; the area is its mean over all shares.",
        markdown_table(("measure", "area %", "95 % interval", *(f"{p:g} % answered" for p in shown)), selective),
    ]


def apart_section(report: Report) -> list[str]:
    """Return the section on photographs of something else, if there were any."""
    if not report.get("out_of_distribution"):
        return []
    rows = [
        (
            row["data"],
            str(row["images"]),
            row["measure"].replace("_", " "),
            f"{row['area_under_roc']:.3f}",
            "{:.3f} - {:.3f}".format(*row["area_under_roc_ci95"]),
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
    return ["## Photographs of something else", text, markdown_table(headings, rows)]


def _least_covered(row: SetRow) -> str:
    worst = min(row["classes"], key=lambda of_class: of_class["empirical_coverage"])
    return f"{worst['class']}: {worst['empirical_coverage']:.0f} % of {worst['images']}"


def _change(score: ScoreChange) -> str:
    low, high = score["difference_ci95"]
    return f"{score['before']:.3f} -> {score['after']:.3f} ({score['difference']:+.3f}: {low:+.3f} to {high:+.3f})"
