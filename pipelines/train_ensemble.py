"""The main job: prepare, train the replicas, evaluate the ensemble, report.

    python pipelines/train_ensemble.py --recipe demo --run-dir runs/demo

Running the same command on the same run directory again resumes an interrupted job, and does nothing if it is complete.
"""

if __name__ == "__main__":  # by a Python that may lack packages, or an installed project
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from pipelines.job.interpreter import check_interpreter

    check_interpreter()

import json
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from pipelines.data.prepare import classes_and_images, count_images, find_images, images_to_time, prepare
from pipelines.data.sources import Images, absolute_data
from pipelines.evaluation.evaluate import evaluate_run
from pipelines.evaluation.predictors import PredictorOptions, Predictors
from pipelines.evaluation.targets import make_targets
from pipelines.job.command_line import parse, run_command
from pipelines.job.console import complain, duration, say
from pipelines.job.limits import Limits
from pipelines.job.log import JobLog, read_jobs
from pipelines.job.meter import Meter
from pipelines.job.ray_session import connected, native_stderr_to_log
from pipelines.job.run_option import run_at
from pipelines.job.system_log import system_log
from pipelines.run.claims import check_claim, claim
from pipelines.run.dataset import BadImages, Manifest
from pipelines.run.directory import REPORT_PAGE, SYSTEM, check_folder, finished_replicas
from pipelines.run.lock import only_job_on
from pipelines.run.recipe import Recipe
from pipelines.run.soups import check_soup
from pipelines.run.storage import Storage
from pipelines.run.teacher import (
    absolute_teacher,
    check_same_images,
    check_teacher,
    check_that_a_teacher_is_given,
    with_named_views,
)
from pipelines.run.weights import absolute_weights, check_that_weights_are_given
from pipelines.tracking.commands import how_to_use
from pipelines.tracking.follower import Tracker
from pipelines.tracking.publish import ChampionRule, ModelsToLog, PublishSettings
from pipelines.tracking.recipe_option import recipe_of_options, tell_differences
from pipelines.tracking.store import tracking_uri_for
from pipelines.training.resources import Resources, check_batches, needed_replicas
from pipelines.training.stage import check_before_start, on_cluster, placed_if_shared, train_run
from pipelines.training.validation_plan import ValidationPlan

# What needs PyTorch or draws is imported where it is used: help and errors do not wait for it.
if TYPE_CHECKING:
    from pipelines.training.plan import Estimate

INCOMPLETE_EXIT_CODE, LIMIT_EXIT_CODE = 1, 3
# The options that --help lists first.
FIRST = (
    "run_dir", "recipe", "data", "init_weights", "epochs", "batch_size", "learning_rate", "replicas",
    "bad_images", "tracking_uri", "dry_run", "print_recipe",
)  # fmt: skip


@dataclass(frozen=True)
class Arguments:
    """Train an ensemble of GoogLeNets and evaluate it as the paper did."""

    fields: Recipe
    run_dir: str
    """Run directory: a path, or a URI of an object store."""
    recipe: str = "paper"
    """Recipe: paper, demo, modern, finetune, imagenette, distil, a JSON file, or runs:/ID of a run in MLflow."""
    tracking_uri: str = ""
    """MLflow store or server; the default is MLFLOW_TRACKING_URI, else an SQLite store beside the run directory, or in
    ~/.googlenet-ensemble if that is in an object store; for --recipe runs:/ID it is runs/mlflow.db."""
    models: ModelsToLog = "all"
    """Models to log in MLflow: the ensemble and each replica, the ensemble alone, or none."""
    champion: ChampionRule = "better"
    """When this ensemble becomes the champion of its data set: if better, always, or never."""
    champion_metric: str = ""
    """Metric by which ensembles are better, such as negative_log_likelihood/7x144/calibrated; the default is errors."""
    bad_images: BadImages = "stop"
    """What to do about files that cannot be decoded, and JPEGs with missing pixel data."""
    cpus_per_worker: float | None = None
    """CPUs that each worker of a replica reserves; the default is 1, and beside a GPU its part of the node."""
    gpus_per_worker: float = 0.0
    """GPUs that each worker of a replica reserves; fractions share one."""
    worker_resources: dict[str, float] = field(default_factory=dict)
    """Other resources that each worker reserves, by their names in the cluster: NAME AMOUNT NAME AMOUNT ..."""
    gpus_per_predictor: float | None = None
    """GPUs that each predictor reserves; fractions share one, 0 predicts on CPUs. The default is 1 if there are any."""
    predictors: int | None = None
    """Predictors of the evaluation; the default is as many as the nodes hold, or --parallel-replicas asks for."""
    max_failures: int = 2
    """How often in a row a failed replica is restarted without a newer checkpoint; 0 disables restarts."""
    checkpoint_minutes: float = 10.0
    """Time between two checkpoints within an epoch; each epoch also ends with one."""
    parallel_replicas: int | None = None
    """Replicas to start at once on a cluster that grows on demand; the default is as many as its nodes hold."""
    shard_cache_gb: float | None = None
    """Disk space of each node for copies of shards in an object store; the default leaves a fifth of the disk free."""
    gpu_augmentation: bool = False
    """Decode JPEGs and make samples on the GPU; the same distribution as on CPUs, but not the same bits."""
    cuda_graphs: bool = False
    """Take training steps on a GPU as CUDA graphs, which queue small kernels sooner; checked on an H100 with the
    variant paper, but no whole training has used them yet."""
    validate_every_epochs: int = 1
    """Epochs of the training between two validations; the last epoch always has one."""
    validation_images: int | None = None
    """Validate during training on this many images, spread evenly over all of them; the default is all."""
    min_replicas: int | None = None
    """Evaluate if at least this many replicas are finished, even if others failed; the default is all of them."""
    soup: bool = False
    """Evaluate averages of the replicas' weights as well, for a seventh of the evaluation's time or more."""
    from_scratch: bool = False
    """Train a recipe that is meant for given weights, such as finetune, from random ones."""
    dry_run: bool = False
    """Print the plan, with times from a short trial, and exit; downloads what is named, writes nothing to the run."""
    print_recipe: bool = False
    """Print the recipe as JSON, for a file to use with --recipe, and exit."""
    limits: Limits = field(default_factory=Limits)


def run_job(arguments: Arguments) -> int:
    """Run the job; return its exit code."""
    run = run_at(arguments.run_dir)
    check_folder(run)
    recipe = with_named_views(run, with_absolute_paths(arguments.fields))
    needed_replicas(recipe, arguments.min_replicas)
    check_soup(recipe, soup=arguments.soup)
    check_that_a_teacher_is_given(recipe)
    if not arguments.from_scratch:
        check_that_weights_are_given(run, recipe)
    resources = Resources(
        1.0 if arguments.cpus_per_worker is None else arguments.cpus_per_worker,
        arguments.gpus_per_worker,
        arguments.worker_resources,
        arguments.max_failures,
        arguments.checkpoint_minutes,
        arguments.parallel_replicas,
        arguments.shard_cache_gb,
        validation=ValidationPlan(arguments.validate_every_epochs, arguments.validation_images),
        gpu_augmentation=arguments.gpu_augmentation,
        cuda_graphs=arguments.cuda_graphs,
    )
    resources.check(recipe)
    chosen = arguments.models, arguments.champion, arguments.champion_metric
    publishing = PublishSettings(tracking_uri_for(run, arguments.tracking_uri), *chosen)
    # Bad input ends the job, and the dry run, before a cluster starts or the run is claimed. One that runs already is
    # asked first whether it holds a replica: to list the images of a store may take many times as long.
    check_claim(run, "recipe", recipe.to_dict())
    with placed_if_shared(run, recipe, resources, arguments.cpus_per_worker):
        return _run(arguments, run, recipe, resources, publishing)


def _run(arguments: Arguments, run: Storage, recipe: Recipe, resources: Resources, publishing: PublishSettings) -> int:
    """Look at the images, then plan the job or carry it out; return its exit code."""
    images = find_images(run, recipe)
    check_teacher(run, recipe, *classes_and_images(run, images))
    check_before_start(run, recipe, count_images(run, images))
    if arguments.dry_run:
        with connected():
            _tell_plan(arguments, run, recipe, resources, images)
        return 0
    with only_job_on(run, tell=complain):
        claim(run, "recipe", recipe.to_dict(), given_recipe=arguments.recipe)
        with native_stderr_to_log(run), connected():
            return _carry_out(arguments, run, recipe, resources, images, publishing)


def _tell_plan(arguments: Arguments, run: Storage, recipe: Recipe, resources: Resources, images: Images | None) -> None:
    from pipelines.training.plan import plan_lines

    resources = on_cluster(recipe, resources, count_images(run, images), arguments.cpus_per_worker)
    expected = _estimate(arguments, run, recipe, resources, images)
    say("\n".join(plan_lines(run, recipe, resources, expected)))
    say(arguments.limits.line(arguments.limits.usage(expected.seconds, expected.nodes)))


def _estimate(
    arguments: Arguments, run: Storage, recipe: Recipe, resources: Resources, images: Images | None
) -> "Estimate":
    from pipelines.training.plan import estimate

    options = _predictor_options(arguments, recipe, resources)
    counts, encoded = count_images(run, images), images_to_time(run, recipe, images)
    return estimate(run, recipe, resources, counts, partial(Predictors.that_fit, options), encoded, soup=arguments.soup)


def _carry_out(
    arguments: Arguments,
    run: Storage,
    recipe: Recipe,
    resources: Resources,
    images: Images | None,
    publishing: PublishSettings,
) -> int:
    """Run the stages one after the other; return the exit code. Needs a connection to a Ray cluster."""
    from pipelines.training.failure import tell_failures
    from pipelines.training.network import ensemble_bytes
    from pipelines.training.plan import placement_lines

    counts = count_images(run, images)
    resources = on_cluster(recipe, resources, counts, arguments.cpus_per_worker)
    options = _predictor_options(arguments, recipe, resources)
    say("\n".join(placement_lines(run, recipe, resources)))
    # Refused, or told, now rather than after days of training.
    Predictors.that_fit(options, ensemble_bytes(recipe, counts.classes)).tell_shortage()
    meter = Meter(arguments.limits, read_jobs(run))
    log = JobLog(run)
    # The trial of the estimate counts, too: it may wait for a node for half an hour, in each of several tries.
    with log.whole_job(), system_log(run, SYSTEM), meter.kept_in(log):
        if arguments.limits.are_given and not meter.why_stop():
            expected = _estimate(arguments, run, recipe, resources, images)
            say(meter.expect(expected.seconds, expected.evaluation_seconds, expected.nodes))
            if expected.untried:
                say(f"nothing is kept back for the evaluation, since predictors are {expected.untried}")
        with log.stage("prepare"):
            manifest = _prepare(arguments, run, recipe, images)
        if recipe.teacher and not meter.why_stop():
            with log.stage("targets"):
                make_targets(run, recipe, options)
        with Tracker(run, recipe, manifest, publishing) as tracker:
            with log.stage("train"):
                failures = train_run(
                    run, recipe, resources, arguments.cpus_per_worker, manifest, tracker.update, meter.why_stop
                )
            finished = len(finished_replicas(run, recipe.replicas))
            at_limit = meter.has_stopped and finished < recipe.replicas
            enough = finished >= needed_replicas(recipe, arguments.min_replicas, at_limit=at_limit)
            if enough:
                _evaluate(run, recipe, options, log, soup=arguments.soup and not at_limit)
            tracker.finish(succeeded=enough, with_models=not at_limit)
        if tracker.outcome:
            say(tracker.outcome)
        tell_failures(failures, finished, recipe.replicas, at_limit=at_limit)
        if enough:
            say(f"report: {run.below(REPORT_PAGE)} ({duration(meter.used().seconds)})")
            say(how_to_use(run, publishing.tracking_uri, tracker.page, tracker.model))
        if at_limit:
            say(meter.how_to_go_on(finished, recipe.replicas))
            return LIMIT_EXIT_CODE
    return 0 if enough else INCOMPLETE_EXIT_CODE


def _predictor_options(arguments: Arguments, recipe: Recipe, resources: Resources) -> PredictorOptions:
    options = PredictorOptions(arguments.predictors, arguments.gpus_per_predictor)
    workers = (arguments.parallel_replicas or 0) * recipe.workers_per_replica
    return options.after(workers, resources.cpus_per_worker, resources.gpus_per_worker)


def _prepare(arguments: Arguments, run: Storage, recipe: Recipe, images: Images | None) -> Manifest:
    """Prepare the images and the initial weights; print what may make a repeated run differ from the original."""
    from pipelines.training.network import keep_initial_weights
    from pipelines.training.scaled_weights import keep_scaled_weights

    manifest = prepare(run, recipe, arguments.bad_images, images, lambda left: check_batches(recipe, left))
    earlier = "" if images else "; prepared by an earlier start: to use other images, choose another --run-dir"
    say(f"data: {manifest.summary()}{earlier}")
    check_same_images(run, recipe, manifest)
    keep_initial_weights(run, recipe, len(manifest.classes))
    keep_scaled_weights(run, recipe, manifest)
    tell_differences(arguments.recipe, arguments.tracking_uri, manifest)
    return manifest


def _evaluate(run: Storage, recipe: Recipe, options: PredictorOptions, log: JobLog, *, soup: bool) -> None:
    """Evaluate the finished replicas and write the report."""
    from pipelines.evaluation.soups import evaluate_soups
    from pipelines.report.write import write_report

    with log.stage("evaluate"):
        ensemble = evaluate_run(run, recipe, options)
    if soup:
        with log.stage("soup"):
            evaluate_soups(run, recipe, ensemble, options)
    with log.stage("report"):
        say(write_report(run, ensemble))


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """Return the recipe with absolute paths, independent of the working directory."""
    return replace(
        recipe,
        data=absolute_data(recipe.data),
        init_weights=absolute_weights(recipe.init_weights),
        teacher=absolute_teacher(recipe.teacher),
    )


def _main() -> int:
    arguments = parse(Arguments, FIRST, fields=recipe_of_options(sys.argv[1:], Arguments.recipe), limits=Limits())
    if arguments.print_recipe:
        say(json.dumps(arguments.fields.to_dict(), indent=2), wrap=False)
        return 0
    return run_job(arguments)


if __name__ == "__main__":
    run_command(_main)
