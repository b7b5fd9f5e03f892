"""Numbers of a report by stable names, as MLflow has them: how sure answers are, and what fewer passes are worth."""

import hashlib
import re
from collections.abc import Iterable

from pipelines.report.outcomes import cell_name
from pipelines.report.schema import Report

# MLflow allows few characters in the name of a metric.
NOT_IN_NAMES = r"[^A-Za-z0-9_.-]+"
# Numbers of chosen views whose errors MLflow has; the report has more.
CHOSEN_VIEWS = (1, 3, 24, 48)
DECIMALS = 3
DIGEST_CHARACTERS = 8


def names_in_metrics(folders: Iterable[str]) -> dict[str, str]:
    """Return the name of each folder in names of metrics, with a digest where letters are lost or two would be one."""
    names: dict[str, str] = {}
    for folder in dict.fromkeys(folders):
        name = re.sub(NOT_IN_NAMES, "_", folder)
        has_lost_letters = any(letter.isalnum() and not letter.isascii() for letter in folder)
        names[folder] = f"{name}-{digest_of_name(folder)}" if has_lost_letters or name in names.values() else name
    return names


def digest_of_name(name: str) -> str:
    """Return a short digest that tells names apart."""
    return hashlib.sha256(name.encode()).hexdigest()[:DIGEST_CHARACTERS]


def numbers_about_answers(report: Report) -> dict[str, float]:
    """Return the numbers on temperatures, sets, answers left to people, something else, chosen views, and budgets."""
    numbers: dict[str, float] = {}
    for row in report.get("temperatures", []):
        numbers[f"temperature/{cell_name(row['models'], row['policy'])}"] = row["temperature"]
    for sets in report.get("prediction_sets", []):
        numbers[f"set_coverage/{sets['coverage']:g}"] = sets["empirical_coverage"]
        numbers[f"set_size/{sets['coverage']:g}"] = sets["mean_size"]
    for left in report.get("selective", []):
        numbers[f"area_under_risk/{left['measure']}"] = left["area"]
    names = names_in_metrics(row["data"] for row in report.get("out_of_distribution", []))
    for apart in report.get("out_of_distribution", []):
        where = f"{names[apart['data']]}/{apart['measure']}"
        numbers[f"ood_area_under_roc/{where}"] = apart["area_under_roc"]
        numbers[f"ood_false_positives/{where}"] = apart["false_positives"]
    ways = report.get("spending", [])
    if not any(way["way"] == "student" for way in ways):  # whose report has the chosen views of its teacher
        for way in ways:
            if way["way"] == "chosen_views" and way["crops"] in CHOSEN_VIEWS:
                numbers[f"top1_error/chosen_{way['crops']}"] = way["top1_error"]
    for budget in report.get("budgets", []):
        numbers[f"top1_error/cascade_{budget['budget']}"] = budget["top1_error"]
        numbers[f"passes/cascade_{budget['budget']}"] = budget["passes"]
    return {name: round(number, DECIMALS) for name, number in numbers.items()}
