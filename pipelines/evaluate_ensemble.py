"""Evaluation of an ensemble: every view of every image through every replica, sharded over the cluster with Ray Data.

    python pipelines/evaluate_ensemble.py --run-dir RUN
    python pipelines/evaluate_ensemble.py --run-dir RUN --data PHOTOS
    python pipelines/evaluate_ensemble.py --run-dir RUN --data PHOTOS --unlabelled
    python pipelines/evaluate_ensemble.py --run-dir RUN --data PHOTOS --output-dir NEW
    python pipelines/evaluate_ensemble.py --run-dir NEW --data PHOTOS --weights FILE FILE [--classes FILE]

Shards that already have predictions are skipped.
"""

if __name__ == "__main__":  # by a Python that may lack packages, or an installed project
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from pipelines.job.interpreter import check_interpreter

    check_interpreter()

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from googlenet.evaluation.conformal import SetRule
from googlenet.evaluation.crops import Policy
from googlenet.evaluation.kept_calibration import KeptCalibration
from pipelines.data.class_list import read_class_list
from pipelines.data.folder_tree import check_local_folder
from pipelines.data.own_images import has_validation_images
from pipelines.data.prepare import prepare_for_evaluation
from pipelines.data.sources import Images, absolute_data, images_to_evaluate, is_folder, unlabelled_images
from pipelines.errors import UserError
from pipelines.evaluation.answer_options import check_ood, check_views
from pipelines.evaluation.evaluate import Settings, evaluate, evaluate_run, replicas_to_evaluate
from pipelines.evaluation.external_weights import ExternalWeights, check_order, check_published, read_external
from pipelines.evaluation.kept_beside import calibration_beside, training_runs_of
from pipelines.evaluation.options import Arguments, check_options, way_out_of
from pipelines.evaluation.other_images import choose, place_of, settings_of
from pipelines.evaluation.predictors import Predictors
from pipelines.job.circumstances import this_start
from pipelines.job.command_line import parse, run_command
from pipelines.job.console import complain, say
from pipelines.job.ray_session import connected, native_stderr_to_log
from pipelines.job.run_option import run_at, run_to_write_at
from pipelines.run.budget import read_budget
from pipelines.run.calibration import read_calibration
from pipelines.run.claims import check_own, claim
from pipelines.run.dataset import Manifest, read_manifest
from pipelines.run.directory import REPORT_PAGE, ReplicaFiles, evaluation_folder, read_recipe, read_report
from pipelines.run.lock import only_job_on
from pipelines.run.predictions import EvaluatedEnsemble
from pipelines.run.recipe import Recipe
from pipelines.run.soups import check_soup
from pipelines.run.storage import Storage
from pipelines.run.weights import check_file, each_file
from pipelines.tracking.store import check_that_it_can_be_written, tracking_uri_for

# What needs PyTorch or MLflow or draws is imported where it is used: help and errors do not wait for it.

# The options that --help lists first.
FIRST = ("run_dir", "data", "unlabelled", "weights", "classes", "policies", "budget", "tracking_uri")


def evaluate_own_images(run: Storage, recipe: Recipe, arguments: Arguments) -> str:
    """Evaluate the replicas, and with --soup averages of them, on the run's validation images; return the table."""
    options = arguments.predictor_options()
    with connected():
        ensemble = evaluate_run(run, recipe, options, _start(arguments))
        if arguments.soup:
            from pipelines.evaluation.soups import evaluate_soups

            evaluate_soups(run, recipe, ensemble, options)
        return _write_results(run, ensemble, arguments)


def judge_apart(trained: Storage, recipe: Recipe, arguments: Arguments) -> str:
    """Evaluate the replicas on photographs of something else, and write the run's report again; return its table."""
    from pipelines.report.out_of_distribution import keep_apart

    data, options, known = absolute_data(arguments.ood), arguments.predictor_options(), read_manifest(trained)
    check_ood(data, str(known.prepared_from.get("data", "")))
    images = unlabelled_images(data, known.classes)
    run = trained.below(evaluation_folder(data, [images.listing.digest, images.listing.versions, "ood"]))
    with connected():
        start = _start(arguments)
        manifest = _prepared(run, data, images, arguments)
        inside = evaluate_run(trained, recipe, options, start)
        policies, precision = inside.policies[-1:], inside.arithmetic.precision
        settings = Settings(policies, recipe.crop_px, precision, options, keep_views=False, start=start)
        outside = evaluate(run, trained, replicas_to_evaluate(trained, recipe), manifest, settings)
        keep_apart(trained, inside, run, outside, data)
        return _write_results(trained, inside, arguments)


def evaluate_elsewhere(trained: Storage, recipe: Recipe, arguments: Arguments) -> str:
    """Evaluate a training run's replicas on other images than its own; return the table, or the answers, as text."""
    data, choice = absolute_data(arguments.data), choose(trained, recipe, arguments)
    images = _find_images(data, read_manifest(trained).classes, arguments, recipe.data_seed)
    has_fitted_images = has_validation_images(trained, data, images, is_labelled=not arguments.unlabelled)
    if has_fitted_images and not arguments.unlabelled:
        check_views(trained, choice.replicas, choice.policies)
    identity = settings_of(arguments, choice, data, images.listing.digest)
    run = place_of(trained, identity, images.listing.versions, arguments.output_dir)
    with connected():
        start = _start(arguments)
        manifest = _prepared(run, data, images, arguments)
        settings = replace(_settings(arguments, choice.policies, recipe.crop_px, start), early_stop=choice.early_stop)
        ensemble = evaluate(run, trained, choice.replicas, manifest, settings)
        text = _write_results(run, ensemble, arguments, trained, has_fitted_images=has_fitted_images)
    return f"{text}\n{_to_mlflow(run, trained, manifest, arguments)}"


def evaluate_weights(arguments: Arguments) -> str:
    """Evaluate external weights in a run directory of their own; return the table as text.

    Raises:
        UserError: a weight file, the classes or the images cannot be used.
    """
    run, data = Storage.at(arguments.run_dir), absolute_data(arguments.data)
    if not data:
        raise UserError("--weights needs --data: the labelled images to evaluate them on")
    weights, images = _weights_and_images(data, arguments)
    arguments = replace(arguments, weights=weights.files)
    for trained in training_runs_of(weights.files):
        has_validation_images(trained, data, images, is_labelled=not arguments.unlabelled)
    copies = weights.in_own_format()
    claim(run, "evaluation", weights.settings(data, images.listing.classes, arguments))
    known = None
    if arguments.unlabelled and arguments.calibrated:
        known = calibration_beside(weights.files[0], weights.digests, arguments.policies)
    with connected():
        start = _start(arguments)
        manifest = _prepared(run, data, images, arguments)
        for replica, copy in enumerate(copies):
            run.write(ReplicaFiles(replica).weights, copy)
        settings = _settings(arguments, arguments.policies, weights.crop_px, start)
        ensemble = evaluate(run, run, range(len(copies)), manifest, settings)
        text = _write_results(run, ensemble, arguments, known=known)
    return f"{text}\n{_to_mlflow(run, run, manifest, arguments)}"


def _weights_and_images(data: str, arguments: Arguments) -> tuple[ExternalWeights, Images]:
    """Return the external weights, and the images of their classes; what cannot be used is refused early."""
    for given in arguments.weights:
        check_file(given)
    if is_folder(data):
        check_local_folder(Storage.at(data))  # before PyTorch, which reading weights takes, is imported
    listed = list(read_class_list(arguments.classes)) if arguments.classes else None  # before a download
    # Listing many images or large archives takes minutes.
    find_images = cache(lambda classes: _find_images(data, classes, arguments))
    check_published(arguments.weights, lambda: listed or find_images(()).listing.classes, arguments)
    say(f"reading the weights {', '.join(arguments.weights)} ...")
    files = tuple(file for given in arguments.weights for file in each_file(given))
    weights = read_external(replace(arguments, weights=files), listed)
    images = find_images(weights.classes)
    weights.check(images.listing.classes, arguments)
    if not weights.classes:
        check_order(arguments.weights, images.listing.classes, data)
    return weights, images


def _find_images(data: str, classes: tuple[str, ...], arguments: Arguments, data_seed: int = 0) -> Images:
    if not arguments.unlabelled:
        return images_to_evaluate(data, classes, data_seed)
    if not classes:
        raise UserError("unlabelled images do not name the classes of the outputs: list them with --classes FILE")
    return unlabelled_images(data, classes)


def _prepared(run: Storage, data: str, images: Images, arguments: Arguments) -> Manifest:
    """Prepare the images of ``data`` in ``run``, unless no node can hold a predictor."""
    Predictors.that_fit(arguments.predictor_options(), {"cpu": 0, "gpu": 0})
    manifest = prepare_for_evaluation(run, data, images, arguments.bad_images)
    say(f"data: {manifest.summary(labelled=not arguments.unlabelled)}")
    return manifest


def _start(arguments: Arguments) -> dict[str, Any]:
    from pipelines.report.provenance import evaluated_by

    return dict(evaluated_by(this_start(), list(arguments.weights)))


def _settings(arguments: Arguments, policies: Sequence[Policy], crop_px: int, start: dict[str, Any]) -> Settings:
    options, keep_views = arguments.predictor_options(), not arguments.unlabelled
    return Settings(policies, crop_px, arguments.precision, options, keep_views=keep_views, start=start)


def _write_results(
    run: Storage,
    ensemble: EvaluatedEnsemble,
    arguments: Arguments,
    trained: Storage | None = None,
    *,
    has_fitted_images: bool = False,
    known: KeptCalibration | None = None,
) -> str:
    """Write answers for unlabelled images, otherwise the report; return the first answers, or the table, as text.

    The answers have the temperatures of ``trained``, or those of ``known``.
    """
    from googlenet.evaluation.temperature import FEWEST_IMAGES
    from pipelines.report.abstention import ReportedSets
    from pipelines.report.answers import write_answers
    from pipelines.report.write import write_report

    if not arguments.unlabelled:
        sets = ReportedSets.asked_for(arguments.set_penalty, arguments.coverage)
        text = write_report(run, ensemble, trained, sets, has_fitted_images=has_fitted_images)
        if arguments.coverage and "prediction_sets" not in read_report(run):
            text += f"\nnote: --coverage is not used: sets of classes need {FEWEST_IMAGES} labelled images or more"
        return f"{text}\nreport: {run.below(REPORT_PAGE)}"
    if trained and arguments.calibrated:
        known = read_calibration(trained, ensemble.weights_digests)
    kept = read_budget(trained, ensemble.weights_digests) if trained else None
    rule = SetRule(arguments.set_penalty)
    return write_answers(run, ensemble, known, arguments.coverage, kept, rule, calibrated=arguments.calibrated)


def _to_mlflow(run: Storage, trained: Storage, manifest: Manifest, arguments: Arguments) -> str:
    """Send the report to MLflow; return whether it went there."""
    from pipelines.tracking.evaluation import send_evaluation

    if arguments.unlabelled:
        return "MLflow: not sent; images without labels have no errors"
    if not arguments.mlflow:
        return "MLflow: not sent (--no-mlflow)"
    uri = tracking_uri_for(run if arguments.output_dir else trained, arguments.tracking_uri)
    return send_evaluation(run, trained, manifest, uri)


def _main() -> None:
    arguments = parse(Arguments, FIRST)
    check_options(arguments)
    uri = ""
    if arguments.mlflow and not arguments.unlabelled:  # refused now rather than after hours
        uri = tracking_uri_for(Storage.at(arguments.output_dir or arguments.run_dir), arguments.tracking_uri)
    run = (run_to_write_at if arguments.weights else run_at)(arguments.run_dir)
    recipe = None if arguments.weights else read_recipe(run, "give one with --run-dir, or weights with --weights")
    if recipe:
        check_soup(recipe, soup=arguments.soup)
    written = run_to_write_at(arguments.output_dir) if arguments.output_dir else run
    way_out = way_out_of(arguments)
    written.check_writable(way_out)
    check_own(written, way_out, absolute_data(arguments.data))
    if uri and arguments.data:  # of a run's own images, nothing is sent
        check_that_it_can_be_written(uri)
    with only_job_on(written, way_out, complain), native_stderr_to_log(written):
        if recipe is None:
            say(evaluate_weights(arguments))
        elif arguments.data:
            say(evaluate_elsewhere(run, recipe, arguments))
        else:
            from pipelines.tracking.evaluation import not_sent

            replicas_to_evaluate(run, recipe)  # refused before a cluster starts
            if arguments.ood:
                say(judge_apart(run, recipe, arguments))
            else:
                say(evaluate_own_images(run, recipe, arguments))
            if uri:
                say(not_sent(run, uri))


if __name__ == "__main__":
    run_command(_main)
