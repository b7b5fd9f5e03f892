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

import hashlib
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from googlenet.evaluation.conformal import SetRule
from googlenet.evaluation.crops import CROP_POLICIES, scales_px
from googlenet.evaluation.kept_calibration import KeptCalibration
from pipelines.data.class_list import read_class_list
from pipelines.data.own_images import has_validation_images
from pipelines.data.prepare import BadImages, prepare_for_evaluation
from pipelines.data.sources import Images, absolute_data, images_to_evaluate, unlabelled_images
from pipelines.errors import UserError
from pipelines.evaluation import answer_options
from pipelines.evaluation.evaluate import Settings, evaluate, evaluate_run, replicas_to_evaluate
from pipelines.evaluation.external_weights import agreed, check_outputs, check_published, own_format
from pipelines.evaluation.kept_beside import calibration_beside
from pipelines.evaluation.predictors import PredictorOptions, Predictors
from pipelines.evaluation.preflight import PrecisionChoice
from pipelines.job.circumstances import this_start
from pipelines.job.command_line import parse, run_command
from pipelines.job.console import complain, say
from pipelines.job.ray_session import connected, native_stderr_to_log
from pipelines.job.run_option import run_at
from pipelines.run.budget import early_stop_of, read_budget, with_chosen_views
from pipelines.run.calibration import read_calibration
from pipelines.run.claims import check_own, claim
from pipelines.run.dataset import Manifest, read_manifest
from pipelines.run.directory import REPORT_PAGE, ReplicaFiles, evaluation_folder, read_recipe, run_id
from pipelines.run.lock import only_job_on
from pipelines.run.predictions import EvaluatedEnsemble, sorted_policies
from pipelines.run.recipe import Recipe, check_policies
from pipelines.run.storage import Storage
from pipelines.run.weights import check_file, each_file, read_file
from pipelines.tracking.store import tracking_uri_for

# What needs PyTorch or MLflow or draws is imported where it is used: help and errors do not wait for it.
DEFAULT_CROP_PX = 224


@dataclass(frozen=True)
class Arguments:
    """Evaluate an ensemble with 1, 10 and 144 crops, and write its report."""

    run_dir: str
    """Run directory of a training run; with --weights, a new one for this evaluation."""
    data: str = ""
    """Labelled images: a folder, an archive, or a data set by name; the default is the run's own validation images."""
    weights: tuple[str, ...] = ()
    """External weights, one per network: files, or the names bvlc, torchvision:googlenet, hf://OWNER/REPO[/FILE]."""
    classes: str = ""
    """File with the class folders' names, one per line, in the order of the outputs; the data may lack some of them."""
    policies: tuple[int | str, ...] = CROP_POLICIES
    """1, 10, 144, scales in pixels such as 256+320 (36 crops at each), or best:24, the 24 views that help most on the
    run's validation images; without --data the run's recipe decides."""
    precision: PrecisionChoice = "auto"
    """'auto' uses bf16 for long work if it is fast and agrees with fp32; without --data the recipe decides."""
    gpus_per_predictor: float | None = None
    """GPUs that each predictor reserves; fractions share one, and 0 predicts on CPUs. The default is 1 if the cluster
    has any."""
    predictors: int | None = None
    """Predictors to start, also on nodes that join on demand; the default is as many as the nodes hold."""
    crop_px: int | None = None
    """Side of the network's input for --weights; the default is the value in the files, or 224."""
    bad_images: BadImages = "stop"
    """What to do about files that cannot be decoded, and JPEGs with missing pixel data."""
    unlabelled: bool = False
    """The images of --data have no labels: write the ensemble's answers for each (answers/top5.csv, .parquet)."""
    calibrated: bool = True
    """Give the probabilities of --unlabelled images the temperature that the run keeps, or that lies beside --weights;
    it changes no answer."""
    coverage: float | None = None
    """With --unlabelled: list the classes that hold the true one with this probability, such as 0.95."""
    set_penalty: float = 0.0
    """Added to a class's score for each rank after the first, such as 0.01, to shorten long sets of classes: those of
    --coverage, or those of the report."""
    budget: Literal["fast", "balanced", "best"] = "best"
    """With --unlabelled: stop adding views and replicas once the answer is sure enough. Answers that all passes would
    have right are lost on at most 1 % (fast) or 0.2 % (balanced) of the images, on more if the run has fewer than 99
    or 499 validation images; best makes all passes."""
    soup: bool = False
    """Evaluate averages of the replicas' weights as well, on the run's validation images."""
    ood: str = ""
    """Folder of photographs that show none of the classes; the report says how well the ensemble's uncertainty
    separates them from the run's validation images."""
    output_dir: str = ""
    """Run directory for the evaluation of --data; the default is a folder in --run-dir, which is then written."""
    mlflow: bool = True
    """With --data or --weights: send the report to MLflow, as a run of its own beside the training run."""
    tracking_uri: str = ""
    """MLflow store or server; the default is MLFLOW_TRACKING_URI, else an SQLite store beside the directory written, or
    in ~/.googlenet-ensemble if that is in an object store."""


def evaluate_weights(arguments: Arguments) -> str:
    """Evaluate external weights in a run directory of their own; return the table as text.

    Raises:
        UserError: a weight file, the classes or the images cannot be used.
    """
    run, data = Storage.at(arguments.run_dir), absolute_data(arguments.data)
    if not data:
        raise UserError("--weights needs --data: the labelled images to evaluate them on")
    for given in arguments.weights:
        check_file(given)
    listed = list(read_class_list(arguments.classes)) if arguments.classes else None  # before a download
    # Listing many images or large archives takes minutes.
    find_images = cache(lambda classes: _find_images(data, classes, arguments))
    check_published(arguments.weights, lambda: listed or find_images(()).listing.classes, arguments)
    say(f"reading the weights {', '.join(arguments.weights)} ...")
    arguments = replace(arguments, weights=tuple(file for given in arguments.weights for file in each_file(given)))
    files = [read_file(file) for file in arguments.weights]
    networks = [stored for _, stored in files]
    crop_px = agreed("crop_px", arguments.crop_px, networks) or DEFAULT_CROP_PX
    check_policies(arguments.policies, crop_px)
    named = agreed("classes", listed, networks) or ()
    outputs = [stored.num_classes for stored in networks]
    if named:
        check_outputs(arguments.weights, outputs, len(named), arguments)
    images = find_images(tuple(named))
    classes = images.listing.classes
    check_outputs(arguments.weights, outputs, len(classes), arguments)
    digests = [hashlib.sha256(content).hexdigest() for content, _ in files]
    settings = {
        "data": data,
        "weights": digests,
        "classes": list(classes),
        "policies": list(sorted_policies(arguments.policies)),
        "crop_px": crop_px,
        "precision": arguments.precision,
    }
    own = [own_format(path, stored) for path, stored in zip(arguments.weights, networks, strict=True)]
    claim(run, "evaluation", settings)
    known = None
    if arguments.unlabelled and arguments.calibrated:
        known = calibration_beside(arguments.weights[0], digests, arguments.policies)
    with connected():
        start = _start(arguments)
        manifest = _prepared(run, data, images, arguments)
        for replica, weights in enumerate(own):
            run.write(ReplicaFiles(replica).weights, weights)
        ensemble = evaluate(run, run, range(len(networks)), manifest, _settings(arguments, crop_px, start))
        text = _write_results(run, ensemble, arguments, known=known)
    return f"{text}\n{_to_mlflow(run, run, manifest, arguments)}"


def _to_mlflow(run: Storage, trained: Storage, manifest: Manifest, arguments: Arguments) -> str:
    """Send the report to MLflow; return whether it went there."""
    from pipelines.tracking.evaluation import send_evaluation

    if arguments.unlabelled:
        return "MLflow: not sent; images without labels have no errors"
    if not arguments.mlflow:
        return "MLflow: not sent (--no-mlflow)"
    uri = tracking_uri_for(run if arguments.output_dir else trained, arguments.tracking_uri)
    return send_evaluation(run, trained, manifest, uri)


def _settings(arguments: Arguments, crop_px: int, start: dict[str, Any]) -> Settings:
    policies, options, keep_views = arguments.policies, _predictor_options(arguments), not arguments.unlabelled
    return Settings(policies, crop_px, arguments.precision, options, keep_views=keep_views, start=start)


def _start(arguments: Arguments) -> dict[str, Any]:
    from pipelines.report.provenance import evaluated_by

    return dict(evaluated_by(this_start(), list(arguments.weights)))


def _predictor_options(arguments: Arguments) -> PredictorOptions:
    return PredictorOptions(arguments.predictors, arguments.gpus_per_predictor)


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
    from pipelines.report.answers import write_answers
    from pipelines.report.write import write_report

    if not arguments.unlabelled:
        rule = SetRule(arguments.set_penalty)
        text = write_report(run, ensemble, trained, rule, has_fitted_images=has_fitted_images)
        return f"{text}\nreport: {run.below(REPORT_PAGE)}"
    if trained and arguments.calibrated:
        known = read_calibration(trained, ensemble.weights_digests)
    kept = read_budget(trained, ensemble.weights_digests) if trained else None
    rule = SetRule(arguments.set_penalty)
    return write_answers(run, ensemble, known, arguments.coverage, kept, rule, calibrated=arguments.calibrated)


def _find_images(data: str, classes: tuple[str, ...], arguments: Arguments, data_seed: int = 0) -> Images:
    if not arguments.unlabelled:
        return images_to_evaluate(data, classes, data_seed)
    if not classes:
        raise UserError("unlabelled images do not name the classes of the outputs: list them with --classes FILE")
    return unlabelled_images(data, classes)


def _prepared(run: Storage, data: str, images: Images, arguments: Arguments) -> Manifest:
    """Prepare the images of ``data`` in ``run``, unless no node can hold a predictor."""
    Predictors.that_fit(_predictor_options(arguments), {"cpu": 0, "gpu": 0})
    manifest = prepare_for_evaluation(run, data, images, arguments.bad_images)
    say(f"data: {manifest.summary()}")
    return manifest


def evaluate_elsewhere(trained: Storage, recipe: Recipe, arguments: Arguments) -> str:
    """Evaluate a training run's replicas on other images than its own; return the table, or the answers, as text."""
    data = absolute_data(arguments.data)
    replicas = replicas_to_evaluate(trained, recipe, are_judged=not arguments.unlabelled)
    early_stop = early_stop_of(trained, replicas, arguments.budget)
    policies = CROP_POLICIES[-1:] if early_stop else with_chosen_views(trained, replicas, arguments.policies)
    check_policies(policies, recipe.crop_px)
    answer_options.check_sets(trained, replicas, policies, arguments.coverage)
    has_temperature = arguments.unlabelled and arguments.calibrated and not early_stop
    if has_temperature and (line := answer_options.about_no_temperature(trained, replicas, policies)):
        say(line)
    arguments = replace(arguments, policies=policies)
    images = _find_images(data, read_manifest(trained).classes, arguments, recipe.data_seed)
    has_fitted_images = has_validation_images(trained, data, images, is_labelled=not arguments.unlabelled)
    if has_fitted_images and not arguments.unlabelled:
        answer_options.check_views(trained, replicas, policies)
    settings = {
        "data": data,
        "listing": images.listing.digest,
        "policies": list(sorted_policies(arguments.policies)),
        "precision": arguments.precision,
        "unlabelled": arguments.unlabelled,
        **({"budget": early_stop.key} if early_stop else {}),
    }
    if arguments.output_dir:
        run = Storage.at(arguments.output_dir)
        claim(run, "evaluation", {"run": run_id(trained), **settings}, "choose another --output-dir")
    else:
        run = trained.below(evaluation_folder(data, [*settings.values(), images.listing.versions]))
    with connected():
        start = _start(arguments)
        manifest = _prepared(run, data, images, arguments)
        chosen = replace(_settings(arguments, recipe.crop_px, start), early_stop=early_stop)
        ensemble = evaluate(run, trained, replicas, manifest, chosen)
        text = _write_results(run, ensemble, arguments, trained, has_fitted_images=has_fitted_images)
    return f"{text}\n{_to_mlflow(run, trained, manifest, arguments)}"


def judge_apart(trained: Storage, recipe: Recipe, arguments: Arguments) -> str:
    """Evaluate the replicas on photographs of something else, and write the run's report again; return its table."""
    from pipelines.report.out_of_distribution import keep_apart

    data, options, known = absolute_data(arguments.ood), _predictor_options(arguments), read_manifest(trained)
    answer_options.check_ood(data, str(known.prepared_from.get("data", "")))
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


def _main() -> None:
    arguments = parse(Arguments)
    _check(arguments)
    run = run_at(arguments.run_dir)
    recipe = None if arguments.weights else read_recipe(run, "give one with --run-dir, or weights with --weights")
    written = run_at(arguments.output_dir) if arguments.output_dir else run
    data = "" if arguments.data else "--data FOLDER "
    way_out = f"add {data}--output-dir DIR to evaluate it into a directory of your own"
    if arguments.output_dir or arguments.weights:
        way_out = f"choose another {'--output-dir' if arguments.output_dir else '--run-dir'}"
    elif arguments.ood or arguments.soup:  # they belong to the run's own images
        way_out = "copy the run, and give the copy with --run-dir"
    written.check_writable(way_out)
    check_own(written, way_out)
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
                say(_evaluate_own_images(run, recipe, arguments))
            say(not_sent(run, tracking_uri_for(run, arguments.tracking_uri)))


def _evaluate_own_images(run: Storage, recipe: Recipe, arguments: Arguments) -> str:
    """Evaluate the replicas, and with --soup averages of them, on the run's validation images; return the table."""
    options = _predictor_options(arguments)
    with connected():
        ensemble = evaluate_run(run, recipe, options, _start(arguments))
        if arguments.soup:
            from pipelines.evaluation.soups import evaluate_soups

            evaluate_soups(run, recipe, ensemble, options)
        return _write_results(run, ensemble, arguments)


def _check(arguments: Arguments) -> None:
    try:
        scales_px(DEFAULT_CROP_PX if arguments.crop_px is None else arguments.crop_px)
    except ValueError as error:
        raise UserError(str(error)) from error
    tracking_uri_for(Storage.at(arguments.run_dir), arguments.tracking_uri)  # refused now rather than after hours
    if (arguments.classes or arguments.crop_px is not None) and not arguments.weights:
        raise UserError("--classes and --crop-px need --weights; a training run has its own")
    if arguments.output_dir and (arguments.weights or not arguments.data):
        raise UserError("--output-dir needs --data FOLDER; an evaluation of --weights is written to --run-dir")
    for name, default in (("policies", CROP_POLICIES), ("precision", "auto"), ("unlabelled", False)):
        if getattr(arguments, name) != default and not arguments.data:
            raise UserError(f"--{name} needs --data FOLDER; for the run's own images its recipe decides")
    if arguments.bad_images != "stop" and not (arguments.data or arguments.ood):
        raise UserError("--bad-images needs --data FOLDER or --ood FOLDER; the run's own images are prepared already")
    answer_options.check_own_images(bool(arguments.ood), arguments.soup, bool(arguments.data or arguments.weights))
    is_answering = arguments.unlabelled and not arguments.weights
    answer_options.check_budget(arguments.budget, is_answering, arguments.policies, arguments.coverage)
    answer_options.check_calibration(arguments.calibrated, arguments.unlabelled)
    answer_options.check_coverage(arguments.coverage, is_answering, calibrated=arguments.calibrated)
    answer_options.check_set_penalty(arguments.set_penalty, arguments.coverage, arguments.unlabelled)
    _predictor_options(arguments)


if __name__ == "__main__":
    run_command(_main)
