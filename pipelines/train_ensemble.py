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
from pipelines.data.sources import Images, with_absolute_paths
from pipelines.evaluation.evaluate import evaluate_run
from pipelines.evaluation.predictors import PredictorOptions, Predictors
from pipelines.evaluation.targets import make_targets
from pipelines.job.command_line import parse, run_command
from pipelines.job.console import complain, duration, say
from pipelines.job.limits import Limits
from pipelines.job.log import JobLog, read_jobs
from pipelines.job.meter import Meter
from pipelines.job.ray_session import connected, native_stderr_to_log
from pipelines.job.run_option import run_to_write_at
from pipelines.job.system_log import system_log
from pipelines.run.claims import check_claim, claim
from pipelines.run.dataset import BadImages, Counts, Manifest
from pipelines.run.directory import REPORT_PAGE, RUN, SYSTEM, check_folder, finished_replicas, read_run
from pipelines.run.lock import only_job_on
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.run.teacher import check_same_images, check_teacher, with_named_views
from pipelines.tracking.commands import how_to_use
from pipelines.tracking.follower import Tracker
from pipelines.tracking.publish import ChampionRule, ModelsToLog, PublishSettings
from pipelines.tracking.recipe_option import recipe_of_options, tell_differences
from pipelines.tracking.store import check_that_it_can_be_written, tracking_uri_for
from pipelines.training import stage
from pipelines.training.options import WorkerOptions
from pipelines.training.resources import Resources, check_batches, needed_replicas

# What needs PyTorch or draws is imported where it is used: help and errors do not wait for it.
if TYPE_CHECKING:
    from pipelines.training.time_estimate import Estimate

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
    gpus_per_predictor: float | None = None
    """GPUs that each predictor reserves; fractions share one, 0 predicts on CPUs. The default is 1 if there are any."""
    predictors: int | None = None
    """Predictors of the evaluation; the default is as many as the nodes hold, or --parallel-replicas asks for."""
    min_replicas: int | None = None
    """Evaluate if at least this many replicas are finished, even if others failed; the default is all of them."""
    soup: bool = False
    """Also evaluate averages of the replicas' weights (soups); adds a seventh of the evaluation's time or more."""
    from_scratch: bool = False
    """Let a recipe that is meant for pretrained weights, such as finetune, start from random weights."""
    dry_run: bool = False
    """Print the plan, with times from a short trial, and exit; downloads named data and weights, but leaves the run
    unchanged."""
    print_recipe: bool = False
    """Print the recipe as JSON, for a file to use with --recipe, and exit."""
    workers: WorkerOptions = field(default_factory=WorkerOptions)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Job:
    """A job on a run directory, with the resources of a worker, and the listed images; None if they are prepared."""

    options: Arguments
    run: Storage
    recipe: Recipe
    resources: Resources
    images: Images | None

    @property
    def counts(self) -> Counts:
        """Numbers of images."""
        return count_images(self.run, self.images)

    def on_cluster(self) -> "Job":
        """Return the same job with a worker's resources on the connected cluster."""
        return replace(self, resources=stage.on_cluster(self.recipe, self.resources, self.counts))

    def predictors(self) -> PredictorOptions:
        """Return the predictors to ask for."""
        asked = PredictorOptions(self.options.predictors, self.options.gpus_per_predictor)
        workers = (self.options.workers.parallel_replicas or 0) * self.recipe.workers_per_replica
        return asked.after(workers, self.resources.cpus_per_worker, self.resources.gpus_per_worker)


def run_job(arguments: Arguments) -> int:
    """Run the job; return its exit code."""
    run = run_to_write_at(arguments.run_dir)
    check_folder(run)
    begun = read_run(run).get("recipe", {}) if run.exists(RUN) else {}
    recipe = with_named_views(run, with_absolute_paths(arguments.fields, begun))
    stage.check_recipe(run, recipe, arguments.min_replicas, soup=arguments.soup, from_scratch=arguments.from_scratch)
    resources = arguments.workers.resources()
    resources.check(recipe)
    PredictorOptions(arguments.predictors, arguments.gpus_per_predictor)  # refuses impossible ones before Ray starts
    chosen = arguments.models, arguments.champion, arguments.champion_metric
    publishing = PublishSettings(tracking_uri_for(run, arguments.tracking_uri), *chosen)
    check_that_it_can_be_written(publishing.tracking_uri)
    # Bad input ends the job, and the dry run, before a cluster starts or the run is claimed. One that runs already is
    # asked first whether it holds a replica: to list the images of a store may take many times as long.
    check_claim(run, "recipe", recipe.to_dict())
    with stage.placed_if_shared(run, recipe, resources):
        job = Job(arguments, run, recipe, resources, find_images(run, recipe))
        check_teacher(run, recipe, *classes_and_images(run, job.images))
        stage.check_before_start(run, recipe, job.counts)
        if arguments.dry_run:
            with connected():
                job = job.on_cluster()
                stage.tell_plan(run, recipe, job.resources, _estimate(job), arguments.limits)
            return 0
        with only_job_on(run, tell=complain):
            claim(run, "recipe", recipe.to_dict(), given_recipe=arguments.recipe)
            with native_stderr_to_log(run), connected():
                return _carry_out(job.on_cluster(), publishing)


def _estimate(job: Job) -> "Estimate":
    from pipelines.training.time_estimate import estimate

    that_fit, encoded = partial(Predictors.that_fit, job.predictors()), images_to_time(job.run, job.recipe, job.images)
    return estimate(job.run, job.recipe, job.resources, job.counts, that_fit, encoded, soup=job.options.soup)


def _carry_out(job: Job, publishing: PublishSettings) -> int:
    """Run the stages one after the other; return the exit code. Needs a connection to a Ray cluster."""
    from pipelines.training.failure import tell_failures

    options, run, recipe = job.options, job.run, job.recipe
    _tell_placement(job)
    meter, log = Meter(options.limits, read_jobs(run)), JobLog(run)
    # The trial of the estimate counts, too: it may wait for a node for half an hour, in each of several tries.
    with log.whole_job(), system_log(run, SYSTEM), meter.kept_in(log):
        if options.limits.are_given and not meter.why_stop():
            stage.tell_cost(meter, _estimate(job))
        with log.stage("prepare"):
            manifest = _prepare(options, run, recipe, job.images)
        if recipe.teacher and not meter.why_stop():
            with log.stage("targets"):
                make_targets(run, recipe, job.predictors())
        with Tracker(run, recipe, manifest, publishing) as tracker:
            with log.stage("train"):
                failures = stage.train_run(run, recipe, job.resources, manifest, tracker.update, meter.why_stop)
            finished = len(finished_replicas(run, recipe.replicas))
            at_limit = meter.has_stopped and finished < recipe.replicas
            enough = finished >= needed_replicas(recipe, options.min_replicas, at_limit=at_limit)
            if enough:
                _evaluate(job, log, soup=options.soup and not at_limit)
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


def _tell_placement(job: Job) -> None:
    """Say how many replicas run at once, and what predictors lack: now rather than after days of training."""
    from pipelines.training.network import ensemble_bytes
    from pipelines.training.plan import placement_lines

    predictors = job.predictors()
    say("\n".join(placement_lines(job.run, job.recipe, job.resources)))
    Predictors.that_fit(predictors, ensemble_bytes(job.recipe, job.counts.classes)).tell_shortage()


def _prepare(arguments: Arguments, run: Storage, recipe: Recipe, images: Images | None) -> Manifest:
    """Prepare the images and the initial weights; print what may make a repeated run differ from the original."""
    manifest = prepare(run, recipe, arguments.bad_images, images, lambda left: check_batches(recipe, left))
    earlier = "" if images else "; prepared by an earlier start: to use other images, choose another --run-dir"
    say(f"data: {manifest.summary()}{earlier}")
    check_same_images(run, recipe, manifest)
    stage.keep_weights_to_start_from(run, recipe, manifest)
    tell_differences(arguments.recipe, arguments.tracking_uri, manifest)
    return manifest


def _evaluate(job: Job, log: JobLog, *, soup: bool) -> None:
    """Evaluate the finished replicas and write the report."""
    from pipelines.evaluation.soups import evaluate_soups
    from pipelines.report.write import write_report

    with log.stage("evaluate"):
        ensemble = evaluate_run(job.run, job.recipe, job.predictors())
    if soup:
        with log.stage("soup"):
            evaluate_soups(job.run, job.recipe, ensemble, job.predictors())
    with log.stage("report"):
        say(write_report(job.run, ensemble))


def _main() -> int:
    arguments = parse(Arguments, FIRST, fields=recipe_of_options(sys.argv[1:], Arguments.recipe))
    if arguments.print_recipe:
        say(json.dumps(arguments.fields.to_dict(), indent=2), wrap=False)
        return 0
    return run_job(arguments)


if __name__ == "__main__":
    run_command(_main)
