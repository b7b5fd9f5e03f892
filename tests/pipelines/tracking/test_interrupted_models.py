"""A job that ends while models are logged by a thread that cannot be stopped: interrupted, or with no time left."""

import subprocess
import sys

import pytest

from tests.project import ROOT

# The connection does nothing, and logging a model is replaced by what it does most of the time.
PROGRAM = """
import os, signal, threading, torch
from pipelines.job.command_line import run_command
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.tracking import follower

class Connection:
    page, runs = "", None

    def __init__(self, *_):
        pass

    def send(self, *_):
        pass

def work(*_):
    matrix = torch.ones(600, 600)
    if INTERRUPTED:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    while True:
        matrix @ matrix

def main():
    run = Storage.at("a/run/that/is/not/there")
    with follower.Tracker(run, Recipe(replicas=1), None, follower.PublishSettings("")) as tracker:
        tracker.finish(succeeded=True)
    return 3

follower._Connection, follower.publish = Connection, work
run_command(main)
"""


def ended(first: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", first + PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.processes
@pytest.mark.parametrize(
    ("first", "code", "message"),
    [
        ("", 130, "\ninterrupted; run the same command again to resume\n"),
        # As the lock of a run does, which has said so.
        ("from pipelines.run.lock import taken_over\ntaken_over.set()\n", 2, ""),
    ],
)
def test_an_interruption_has_its_own_exit_code_and_no_abort(first: str, code: int, message: str) -> None:
    interrupted = ended(f"INTERRUPTED = True\n{first}")
    assert interrupted.stderr == message
    assert interrupted.returncode == code


@pytest.mark.processes
def test_a_job_that_waits_no_longer_for_its_models_keeps_its_exit_code() -> None:
    limits = "from pipelines.tracking import follower\nfollower.CLOSE_SECONDS = follower.MODELS_SECONDS = 0.5\n"
    limited = ended(f"INTERRUPTED = False\n{limits}")
    assert (limited.returncode, limited.stderr) == (3, "")
