"""Options of commands that the documentation shows and no test runs as shown, read by the commands' own parsers."""

import shlex

from ray.dashboard.modules.job.cli import submit as ray_job_submit

from cluster import options as submit_options
from pipelines import prepare_dataset, train_ensemble
from pipelines.job.options import parse_options
from pipelines.tracking.recipe_option import recipe_of_options

# What stands for a folder that all nodes share.
SHARED = ("SHARED", "/shared/run")


def is_submitted_by_ray(command: str) -> None:
    """Read the options of ``ray job submit``, and those of the main job behind them."""
    own, job = (shlex.split(part) for part in command.replace(*SHARED).split(" -- "))
    assert ray_job_submit.make_context("submit", [*own[3:], "--", *job]).params["entrypoint"] == tuple(job)
    assert job[:2] == ["python", "pipelines/train_ensemble.py"]
    _train(job[2:])


def is_submitted(command: str) -> None:
    """Read the options of ``submit.py``, and those of the main job behind them."""
    arguments = submit_options.parse(shlex.split(command.replace(*SHARED))[2:])
    _train([*arguments.options, "--run-dir", arguments.run_dir])


def _train(words: list[str]) -> None:
    recipe = recipe_of_options(words, train_ensemble.Arguments.recipe)
    assert parse_options(train_ensemble.Arguments, words, fields=recipe).run_dir


def prepares(command: str) -> None:
    """Read the options of ``prepare_dataset.py``."""
    assert parse_options(prepare_dataset.Arguments, shlex.split(command)[2:]).run_dir
