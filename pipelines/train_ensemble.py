"""The main job: prepare, train the replicas, evaluate the ensemble, report.

    python pipelines/train_ensemble.py --recipe demo --run-dir runs/demo

The same command on the same run directory goes on where it was interrupted, and does nothing where all is done.
"""

import json
import sys
import time
from dataclasses import dataclass, replace
from typing import Annotated

import tyro

from pipelines.command_line import absolute_data, parse, run_command
from pipelines.evaluate_ensemble import evaluate
from pipelines.prepare_dataset import BadImages, prepare
from pipelines.progress import duration, say
from pipelines.ray_session import connected
from pipelines.recipes import Recipe, load_recipe
from pipelines.replica_scheduler import Resources, train_replicas
from pipelines.report import REPORT_MARKDOWN, write_report
from pipelines.run_directory import claim, finished_replicas
from pipelines.storage import Storage
from pipelines.tracking import Tracker, default_tracking_uri, how_to_open

INCOMPLETE_EXIT_CODE = 1


@dataclass(frozen=True)
class Arguments:
    """Train an ensemble of GoogLeNets and evaluate it as the paper did."""

    fields: Annotated[Recipe, tyro.conf.arg(name="", prefix_name=False)]
    run_dir: str
    """Run directory: a path, or a URI of an object store."""
    recipe: str = "paper"
    """Recipe by name (paper, demo) or the JSON file of one; the options below override its fields."""
    tracking_uri: str = ""
    """MLflow store or server; the default is an SQLite store in the run directory."""
    bad_images: BadImages = "stop"
    """What to do about files that cannot be decoded."""
    cpus_per_replica: float = 1.0
    """CPUs that each replica reserves."""
    gpus_per_replica: float = 0.0
    """GPUs that each replica reserves; fractions share one."""
    max_failures: int = 2
    """How often a failed replica is started again from its last checkpoint."""
    print_recipe: bool = False
    """Print the recipe as JSON, to be kept and given to --recipe, and stop."""


def run_job(arguments: Arguments) -> int:
    """Carry out the job; the exit code."""
    run = Storage.at(arguments.run_dir)
    recipe = replace(arguments.fields, data=absolute_data(arguments.fields.data))
    claim(run, recipe)
    started = time.monotonic()
    with connected():
        manifest = prepare(run, recipe, arguments.bad_images)
        say(f"data: {manifest.summary()}")
        tracking_uri = arguments.tracking_uri or default_tracking_uri(run)
        with Tracker(run, recipe, manifest, tracking_uri) as tracker:
            resources = Resources(arguments.cpus_per_replica, arguments.gpus_per_replica, arguments.max_failures)
            failures = train_replicas(run, recipe, resources, tracker.update)
            for failure in failures:
                say(f"replica {failure.replica} failed:\n{failure.traceback}")
            if not failures:
                ensemble = evaluate(run, recipe, finished_replicas(run, recipe.replicas))
                say(write_report(run, recipe, ensemble))
            tracker.finish(succeeded=not failures)
    if failures:
        names = ", ".join(str(failure.replica) for failure in failures)
        say(f"replicas {names} failed; the others are finished. The same command tries the failed ones again.")
        return INCOMPLETE_EXIT_CODE
    say(f"report: {run}/{REPORT_MARKDOWN} ({duration(time.monotonic() - started)})")
    say(how_to_open(tracking_uri))
    return 0


def _main() -> int:
    recipe = load_recipe(_recipe_name(sys.argv[1:]))
    arguments = parse(Arguments, default=Arguments(fields=recipe, run_dir=tyro.MISSING))
    if arguments.print_recipe:
        say(json.dumps(arguments.fields.to_dict(), indent=2))
        return 0
    return run_job(arguments)


def _recipe_name(argv: list[str]) -> str:
    """The value of --recipe, which decides the defaults of all other options and so is read before them."""
    for position, word in enumerate(argv):
        if word == "--recipe" and position + 1 < len(argv):
            return argv[position + 1]
        if word.startswith("--recipe="):
            return word.partition("=")[2]
    return "paper"


if __name__ == "__main__":
    run_command(_main)
