"""Stage 4: report.json, index.html, report.md and pictures from the predictions. Single process, no Ray.

No report is written unless every validation image occurs exactly once, with all its views from every replica.
"""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from googlenet.evaluation.kept_budget import KeptBudget
from googlenet.evaluation.kept_calibration import KeptCalibration
from pipelines.job.console import say, terminal_columns
from pipelines.report.abstention import USUAL_SETS, ReportedSets
from pipelines.report.contents import contents
from pipelines.report.drawing import png, svg
from pipelines.report.example_images import mistakes_with_pictures, view_strips
from pipelines.report.figure_of_spending import spending
from pipelines.report.figures import class_figures, figures, learning_curves, read_curves
from pipelines.report.markdown import markdown
from pipelines.report.out_of_distribution import read_apart
from pipelines.report.outcomes import write_outcomes, write_scores
from pipelines.report.page import CAPTIONS, report_page
from pipelines.report.provenance import provenance
from pipelines.report.schema import Report
from pipelines.report.schema_of_spending import MeasuredCost
from pipelines.report.soups import JudgedSoups, judge_soups
from pipelines.report.spending import Ways, read_taught, spend
from pipelines.report.tally import Tally, tally_predictions
from pipelines.report.temperatures import Calibrated, calibrate
from pipelines.report.text import MOST_COLUMNS, table_text
from pipelines.run.budget import read_budget, write_budget
from pipelines.run.calibration import read_calibration, write_calibration
from pipelines.run.dataset import read_manifest
from pipelines.run.directory import (
    CONFUSION,
    COST_JSON,
    PREDICTIONS,
    REPORT,
    REPORT_JSON,
    REPORT_MARKDOWN,
    REPORT_PAGE,
    RUN,
    read_run,
    replica_number,
)
from pipelines.run.first_start import read_start
from pipelines.run.json_lines import read_metrics
from pipelines.run.predictions import EvaluatedEnsemble, read_costs
from pipelines.run.storage import Storage, short_name
from pipelines.run.view_probabilities import read_views


def write_report(
    run: Storage,
    ensemble: EvaluatedEnsemble,
    trained: Storage | None = None,
    sets: ReportedSets = USUAL_SETS,
    *,
    with_pictures: bool = True,
    has_fitted_images: bool = False,
) -> str:
    """Write everything below ``report/``; return the table as text for the terminal.

    report.json is bit-identical for the same predictions on processors of one kind, apart from their first start;
    measurements that depend on the machine are in cost.json.

    Args:
        run: where the images and the predictions are.
        ensemble: the evaluated ensemble.
        trained: the training run of the replicas, if their validation images are not those of ``run``.
        sets: coverages of the sets of classes, and the penalty on the ranks of these.
        with_pictures: whether to draw the pictures, which takes most of the time if there are few images.
        has_fitted_images: whether some of the images are validation images of ``trained``: then what was fitted or
            chosen on these is not judged as on unseen images.

    Raises:
        UserError: predictions are missing, duplicated, of images not in the data set, or of another ensemble.
    """
    say("writing the report ...")
    tally = tally_predictions(run, ensemble)
    soups = None if trained else judge_soups(run, ensemble, list(tally.seen))
    judged = _judge(run, ensemble, tally, None if has_fitted_images else trained, sets, soups)
    report, cost = judged.report, _cost(run, ensemble)
    # All that may refuse a damaged file comes before the old report is deleted.
    facts = provenance(run, trained, cost["arithmetic"], report.get("evaluated_by"))
    drawn = _pictures(run, report, tally, cost) if with_pictures else {}
    page = _page(run, ensemble, report, cost, facts, drawn)
    run.delete(REPORT_JSON)  # whoever reads while the other files are replaced must not take them for one report
    if judged.fitted_calibration:
        write_calibration(run, judged.fitted_calibration)
    if judged.fitted_budget:
        write_budget(run, judged.fitted_budget)
    run.write(CONFUSION, _confusion_csv(tally.confusion(), ensemble.classes).encode())
    if judged.calibrated:
        write_scores(run, judged.calibrated.image_ids, judged.calibrated.scores)
    beside = soups.outcomes if soups else {}
    write_outcomes(run, list(tally.seen), tally.averaged.by_image(), ensemble.policies, beside)
    run.write_json(COST_JSON, cost)
    for name, picture in drawn.items():
        run.write(f"{REPORT}/{name}.png", png(picture))
    run.write(REPORT_PAGE, page.encode())
    run.write(REPORT_MARKDOWN, markdown(report, cost, facts, drawn).encode())
    run.write_json(REPORT_JSON, report)  # last: if it exists, the report is complete
    return table_text(report, cost, str(run.below(REPORT_MARKDOWN)), terminal_columns(MOST_COLUMNS))


@dataclass(frozen=True)
class _Judged:
    """Predictions as a report judges them.

    Attributes:
        report: content of report.json.
        calibrated: calibration of the probabilities, if there are images enough.
        fitted_calibration: that which was fitted on these images, for the run to keep.
        fitted_budget: order of the views and cascade that were fitted on them.
    """

    report: Report
    calibrated: Calibrated | None
    fitted_calibration: KeptCalibration | None
    fitted_budget: KeptBudget | None


def _judge(
    run: Storage,
    ensemble: EvaluatedEnsemble,
    tally: Tally,
    fitted: Storage | None,
    sets: ReportedSets,
    soups: JudgedSoups | None,
) -> _Judged:
    """Judge predictions with what ``fitted`` keeps, a training run of other images; without it, by folds."""
    known = read_calibration(fitted, ensemble.weights_digests) if fitted else None
    known_budget = read_budget(fitted, ensemble.weights_digests) if fitted else None
    calibrated = calibrate(tally.kept, ensemble, known, sets, known_budget)
    errors = _validation_errors(fitted, ensemble.replicas) if fitted else None
    spent = spend(read_views(run, ensemble), ensemble, known_budget, tally.sizes_px)
    ways = Ways(spent, soups.rows if soups else (), read_taught(run))
    report = contents(tally, ensemble, errors, calibrated, ways, read_run(run) if run.exists(RUN) else None)
    if evaluation := read_start(run):
        report["evaluated_by"] = evaluation
    if apart := read_apart(run, ensemble):
        report["out_of_distribution"] = apart
    return _Judged(
        report,
        calibrated,
        fitted_calibration=calibrated.calibration if calibrated and not known else None,
        fitted_budget=spent.kept if spent and not known_budget else None,
    )


def _validation_errors(trained: Storage, replicas: Sequence[str]) -> dict[str, float] | None:
    """Return each replica's top-1 error on the validation images at the end of its training; None if one is unknown."""
    errors = {}
    for name in replicas:
        known = [line for line in read_metrics(trained, replica_number(name)) if "val_top1_error" in line]
        if not known:
            return None
        errors[name] = known[-1]["val_top1_error"]
    return errors


def _pictures(run: Storage, report: Report, tally: Tally, cost: MeasuredCost) -> dict[str, Figure]:
    drawn = {**figures(report), "spending": spending(report, cost["seconds_per_pass"])}
    drawn |= class_figures(report, tally.confusion())
    # An evaluation of other images, or of weights from other sources, has no training.
    curves = read_curves(run, report["ensemble"]["replicas"])
    return {**drawn, "learning_curves": learning_curves(curves)} if curves else drawn


def _page(
    run: Storage,
    ensemble: EvaluatedEnsemble,
    report: Report,
    cost: MeasuredCost,
    facts: dict[str, str],
    drawn: dict[str, Figure],
) -> str:
    image_id, strips = view_strips(run, ensemble)
    examples = {
        "image_id": image_id,
        "strips": strips,
        "mistakes": mistakes_with_pictures(run, report["mistakes"]),
    }
    pictures = {name: svg(picture, CAPTIONS[name][0]) for name, picture in drawn.items()}
    data = short_name(str(read_manifest(run).prepared_from.get("data", "")))
    return report_page(report, cost, data, facts, pictures, examples)


def _confusion_csv(confusion: npt.NDArray[np.int32], classes: tuple[str, ...]) -> str:
    """Return the images by label and answer as CSV, without zeros."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["label", "answer", "images"])
    for label, answer in np.argwhere(confusion):
        writer.writerow([classes[label], classes[answer], int(confusion[label, answer])])
    return text.getvalue()


def _cost(run: Storage, ensemble: EvaluatedEnsemble) -> MeasuredCost:
    """Return the cost of the predictions, as measured by the predictors."""
    costs = read_costs(run.below(PREDICTIONS))
    seconds, passes = sum(cost.seconds for cost in costs), sum(cost.forward_passes for cost in costs)
    per_pass = seconds / max(passes, 1)
    return {
        "predictor_seconds": seconds,
        "forward_passes": passes,
        "passes_per_second": 1 / per_pass if per_pass else None,
        "seconds_per_pass": per_pass,
        "arithmetic": str(ensemble.arithmetic),
        "shards_by_host": dict(Counter(cost.host for cost in costs)),
    }
