"""Sentences of the report: the headline, and remarks on the table, the costs and the mistakes."""

from collections.abc import Sequence

from googlenet.evaluation.two_way import FEWEST_REPLICAS
from pipelines.job.console import count
from pipelines.report.columns import (
    CLASSES_OF_IMAGENET,
    classes_seen,
    crops_in_words,
    decimals,
    differ_beyond_seeds,
    has_given_weights,
    has_papers_classes,
    notable_over_replicas,
    over_replicas,
    tops_shown,
)
from pipelines.report.fields import CropPolicy
from pipelines.report.schema import Report
from pipelines.report.schema_of_certainty import TemperatureRow
from pipelines.report.schema_of_spending import MeasuredCost

# Errors in percent, as sentences show them.
ERROR_DECIMALS = 2
FITTED_BEFORE = "fitted on the validation images of the training run, which are other images"


def headline(report: Report) -> str:
    """Return the errors of the last and of the first cell of the table in a sentence."""
    first, last = report["table"][0], report["table"][-1]
    digits = decimals(report)
    low, high = last["top1_ci95"]
    images = count(report["images"], "image")
    text = f"{_number_of(last['models'], 'model')} with {_crops(last)} {'errs' if last['models'] == 1 else 'err'} on "
    text += f"{last['top1_error']:.{digits}f} % ({low:.{digits}f} to {high:.{digits}f}) of {images}"
    has_top5 = "top5" in tops_shown(report)
    text += f" (top-5 error {last['top5_error']:.{digits}f} %)" if has_top5 else ""
    if last is not first:
        text += f"; {_number_of(first['models'], 'model')} with {_crops(first)} on {first['top1_error']:.{digits}f} %"
        text += f" ({first['top5_error']:.{digits}f} %)" if has_top5 else ""
    return f"{text[0].upper()}{text[1:]}."


def _number_of(number: int, noun: str) -> str:
    return f"one {noun}" if number == 1 else count(number, noun)


def _crops(row: CropPolicy) -> str:
    return crops_in_words(row, one="one")


def notes(report: Report) -> list[str]:
    """Return the remarks on the table."""
    classes, seen = count(report["classes"], "class", "classes"), classes_seen(report)
    absent = f", of which {seen:,} {'has' if seen == 1 else 'have'} images" if seen < report["classes"] else ""
    remarks = [
        f"{count(report['images'], 'image')}, {classes}{absent}; each row is the mean over all ensembles of its size.",
        about_intervals(report),
    ]
    if len(report["replicas"]) > 1:
        remarks += [_about_the_chosen_model(report), *_about_a_better_replica(report)]
    remarks += [*_about_soups(report), *about_missing_replicas(report)]
    if tops_shown(report) == ["top1"]:
        remarks.append(f"Top-5 errors are left out: they say little about {classes}. report.json has them.")
    if has_papers_classes(report):
        remarks.append(
            "The paper's figures are top-5 errors on ImageNet (table 3), shown because these images are of its "
            f"{CLASSES_OF_IMAGENET:,} classes. Those for one model are of its best one: compare them with ours."
        )
    return remarks


def about_intervals(report: Report) -> str:
    """Return over what the intervals of the table are, and how wide one with other seeds is."""
    last = report["table"][-1]
    models = f"{_number_of(last['models'], 'model')} with {_crops(last)}"
    if wide := over_replicas(last, "top1"):
        much = "" if notable_over_replicas(last, "top1") else ", little more than over images alone"
        guess = f"It is rough: {len(report['replicas'])} replicas show little of how others would differ."
        return (
            "The 95 % intervals are over images. A training with other seeds would give other replicas as well: over "
            f"both, the interval of {models} is {wide[0]:.2f} to {wide[1]:.2f} %{much}. {guess}"
        )
    if has_given_weights(report.get("run")):
        text = "The 95 % intervals are over images alone"
        why = "" if len(report["replicas"]) == 1 else ": these networks are not a random sample of trainings"
        return f"{text}{why}."
    if differ_beyond_seeds(report.get("run")):
        return "The 95 % intervals are over images alone: these replicas differ in more than their seeds."
    if len(report["replicas"]) >= FEWEST_REPLICAS:  # a report of an earlier version
        return "The 95 % intervals are over images alone."
    trained = _number_of(len(report["replicas"]), "replica")
    few = f"{trained} {'says' if len(report['replicas']) == 1 else 'say'} too little about those of another seed"
    return f"The 95 % intervals are over images alone: {few}."


def about_sets(report: Report) -> str:
    """Return in words how the threshold of the report's sets was fitted; they are all fitted alike."""
    if report["prediction_sets"][-1]["judged_on"] == "other_images":
        return f"The temperature and the threshold of the sets were {FITTED_BEFORE}."
    return "Each fold of the images is judged with the temperature and the threshold fitted on the others."


def about_temperatures(report: Report) -> str:
    """Return in words how the temperatures of the report were fitted and judged."""
    row = report["temperatures"][-1]
    fitted_here = f"each of {row['folds']} folds of the images judged with the one fitted on the others"
    here = [kept for kept in report["temperatures"] if kept["judged_on"] == "other_folds"]
    if here and len(here) < len(report["temperatures"]):
        judged = f"{FITTED_BEFORE}; the run keeps none for {_cells(here)}: there, {fitted_here}"
    else:
        judged = fitted_here if here else FITTED_BEFORE
    most = max(kept.get("ensembles", 1) for kept in report["temperatures"])
    ensembles = f" Of one size, {most} ensembles share a temperature, and scores are their means." if most > 1 else ""
    return (
        f"Probabilities are averaged first and given a temperature after ({judged}; {count(row['images'], 'image')}). "
        f"No answer changes, only how sure it is.{ensembles} Intervals are 95 % over images."
    )


def _cells(rows: Sequence[TemperatureRow]) -> str:
    """Return numbers of models and crops in words: 1 and 7 models with 36 crops (96 px), one model with 24 (best)."""
    models: dict[str, list[int]] = {}
    for row in rows:
        models.setdefault(_crops(row), []).append(row["models"])
    return ", ".join(
        f"{_number_of(1, 'model') if numbers == [1] else f'{_listed(numbers)} models'} with {crops}"
        for crops, numbers in models.items()
    )


def _listed(numbers: Sequence[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last


def _about_the_chosen_model(report: Report) -> str:
    single, has_top5 = report["single_model"], "top5" in tops_shown(report)
    errors = ", ".join(
        f"{row['top1_error']:.2f}" + (f" / {row['top5_error']:.2f}" if has_top5 else "") + f" % with {_crops(row)}"
        for row in single["rows"]
    )
    kind = "top-1 / top-5 errors" if has_top5 else "top-1 errors"
    if single.get("chosen_on") == "training_validation_images":
        how = "It was chosen on the validation images of its training, not on these."
    else:
        how = "It was chosen on these very images, so its errors are optimistic."
    return (
        "The best one is the model that the paper would report as its single one, that with the lowest top-1 error: "
        f"here {single['replica']}, with {kind} {errors}. {how}"
    )


def _about_a_better_replica(report: Report) -> list[str]:
    """Say with which numbers of crops a replica alone is better than all of them together."""
    most = report["table"][-1]["models"]
    better = []
    for policy, row in enumerate(row for row in report["table"] if row["models"] == most):
        best = min(report["replicas"], key=lambda replica: replica["rows"][policy]["top1_error"])
        alone = best["rows"][policy]["top1_error"]
        if round(alone, ERROR_DECIMALS) < round(row["top1_error"], ERROR_DECIMALS):
            together = f"all {most} models together on {row['top1_error']:.2f} %"
            better.append(f"{best['replica']} errs on {alone:.2f} % with {_crops(row)}, {together}")
    if not better:
        return []
    text = (
        f"A single replica beats the ensemble: {'; '.join(better)}. Averaging helps most where replicas are about "
        "equally good, and which one is best is partly luck."
    )
    return [text]


def _about_soups(report: Report) -> list[str]:
    """Say what the averages of the replicas' weights are worth, with the most crops, at the cost of one network."""
    last = {row["soup"]: row for row in report.get("soups", [])}
    if not last:
        return []
    digits = decimals(report)
    errors = " and ".join(
        f"{row['top1_error']:.{digits}f} % ({name}, {row['top1_difference']:+.{digits}f} points)"
        for name, row in last.items()
    )
    text = f"One network whose weights are an average of the replicas', a soup, errs with {_crops(last['uniform'])} on "
    return [f"{text}{errors}; differences are from the mean of one replica."]


def about_missing_replicas(report: Report) -> list[str]:
    """Return which replicas alone were evaluated, if others were not finished; nothing if all were."""
    trained = report["ensemble"]["replicas"]
    missing = report.get("run", {}).get("recipe", {}).get("replicas", 0) - len(trained)
    if missing <= 0:
        return []
    others = "the other one was" if missing == 1 else f"the other {missing} were"
    of_all = f"{len(trained)} of {len(trained) + missing} replicas"
    verb = "was" if len(trained) == 1 else "were"
    return [f"Only {of_all} {verb} evaluated ({', '.join(trained)}); {others} not finished."]


def cost_of_predictions(cost: MeasuredCost) -> str:
    """Return what the predictions cost, in a sentence."""
    seconds, passes = round(cost["predictor_seconds"]), cost["forward_passes"]
    return (
        f"The predictions took {count(seconds, 'second')}, summed over all predictors, for "
        f"{count(passes, 'forward pass', 'forward passes')} ({cost['arithmetic']})."
    )


def about_mistakes(report: Report, shown: int) -> str:
    """Return how many of the mistakes are shown, in a sentence; empty if all are."""
    wrong = round(sum(row["images"] * row["top1_error"] / 100 for row in report["class_errors"] if row["top1_error"]))
    return f"The {shown} most confident of {wrong:,} mistakes." if wrong > shown else ""
