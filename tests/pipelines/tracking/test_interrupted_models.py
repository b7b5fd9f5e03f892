"""A job that ends while models are logged by a thread that cannot be stopped: interrupted, or with no time left."""

import pytest

from tests.commands import run_python

# A signal, one by the lock of a run, which has said why, and a job that waits no longer for its models.
CASES = ("interrupted", "taken_over", "limited")
# Each case in a fork of one process, which imports PyTorch once; prints each with its exit code. The connection does
# nothing, and logging a model is replaced by what it does most of the time.
PROGRAM = """
import os, signal, sys, threading, torch
from pipelines.job.command_line import run_command
from pipelines.run.lock import taken_over
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
    if case == "taken_over":
        taken_over.set()
    if case != "limited":
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    while True:
        matrix @ matrix

def main():
    run = Storage.at("a/run/that/is/not/there")
    with follower.Tracker(run, Recipe(replicas=1), None, follower.PublishSettings("")) as tracker:
        tracker.finish(succeeded=True)
    return 3

follower._Connection, follower.publish = Connection, work
for case in sys.argv[2:]:
    if not os.fork():
        break
    print(case, os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
else:
    sys.exit()
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
os.dup2(os.open(f"{sys.argv[1]}/{case}", os.O_CREAT | os.O_WRONLY), 2)
if case == "limited":
    follower.CLOSE_SECONDS = follower.MODELS_SECONDS = 0.5
run_command(main)
"""


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """The exit code of each case, and what it printed to standard error."""
    folder = tmp_path_factory.mktemp("ends")
    ended = run_python("-c", PROGRAM, str(folder), *CASES)
    assert ended.code == 0, ended.stderr
    codes = dict(line.split() for line in ended.stdout.splitlines())
    return {case: (int(codes[case]), (folder / case).read_text()) for case in CASES}


@pytest.mark.processes
@pytest.mark.parametrize(
    ("case", "code", "message"),
    [
        ("interrupted", 130, "\ninterrupted; run the same command again to resume\n"),
        ("taken_over", 2, ""),  # the lock has said so
    ],
)
def test_an_interruption_has_its_own_exit_code_and_no_abort(
    ends: dict[str, tuple[int, str]], case: str, code: int, message: str
) -> None:
    assert ends[case] == (code, message)


@pytest.mark.processes
def test_a_job_that_waits_no_longer_for_its_models_keeps_its_exit_code(ends: dict[str, tuple[int, str]]) -> None:
    assert ends["limited"] == (3, "")
