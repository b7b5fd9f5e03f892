"""Ctrl-C, SIGTERM, a closed terminal: a job ends within seconds, leaves no process, and resumes as if uninterrupted.

So it does after SIGKILL.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import termios
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.train_ensemble import run_job
from pipelines.training.replica import train_replica
from pipelines.training.task import ReplicaTask
from tests.commands import ray_environment, run_python
from tests.pipelines.job.ended_jobs import LONGEST_SECONDS, SHARDS, Job, end_all, family, interrupt
from tests.pipelines.jobs import arguments, report_of
from tests.prepared import predicting_here
from tests.project import ROOT


def same_weights(run: Path, finished_run: Path) -> bool:
    ours, reference = (r / "replicas/0/weights.safetensors" for r in (run, finished_run))
    return ours.read_bytes() == reference.read_bytes()


@pytest.mark.apart
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("store_beside")
def test_a_job_that_is_interrupted_by_ctrl_c_ends_at_once_and_its_replica_goes_on_where_it_was(
    prepared_run: Path, finished_run: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    """As on a laptop, with a cluster of its own."""
    run = Path(shutil.copytree(prepared_run, tmp_path / "run"))
    job = Job(run, replace(tiny_recipe, replicas=1, policies=(1,)))
    process = job.start_until("replicas/*/metrics.jsonl")
    interrupt(job, process)
    steps_before = (run / "replicas/0/steps/00000.jsonl").read_bytes()
    train_replica(ReplicaTask(Storage.at(str(run)), job.recipe, 0))
    # The first epoch's steps were not taken again.
    assert (run / "replicas/0/steps/00000.jsonl").read_bytes() == steps_before
    assert same_weights(run, finished_run)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("store_beside")
def test_a_job_that_is_killed_in_evaluation_is_completed_with_the_same_result(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path, trained_run: Path, finished_run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A job on a cluster that is told to end in training is in test_jobs.py."""
    run = tmp_path / "run"
    for part in ("dataset", "replicas/0"):
        shutil.copytree(trained_run / part, run / part)
    job = Job(run, replace(tiny_recipe, replicas=1), ray_cluster, ("--predictors", "1"))
    job.kill_at_its_first_shard()
    assert not (run / "report").exists()
    done = {path.name: path.stat().st_mtime_ns for path in run.glob(SHARDS)}
    assert 0 < len(done) < 3
    with predicting_here():
        assert run_job(arguments(run, job.recipe, models="none")) == 0
    assert "; prepared by an earlier start: to use other images, choose another --run-dir\n" in capsys.readouterr().out
    after = {path.name: path.stat().st_mtime_ns for path in run.glob("predictions/*")}
    assert len(after) == 3
    assert done.items() <= after.items()  # finished shards were not repeated
    [ours_alone], (same_alone, *_) = report_of(run)["replicas"], report_of(finished_run)["replicas"]
    assert ours_alone["rows"] == same_alone["rows"]


@pytest.mark.parametrize("by", ["SIGTERM", "SIGHUP", "SIGINT"])
@pytest.mark.processes
def test_what_to_do_now_is_said_once_even_where_a_library_raises_an_interrupt_of_its_own(by: str) -> None:
    program = f"""
import os, signal
from pipelines.job.command_line import run_command
def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        signal.raise_signal(signal.{by})
    except KeyboardInterrupt:
        raise KeyboardInterrupt from None  # as Ray does in its own calls
run_command(main)
"""
    ended = run_python("-c", program, seconds=60)
    assert ended.code == 130
    assert ended.stderr == "\ninterrupted; run the same command again to resume\n"


@pytest.mark.processes
def test_an_interrupt_that_python_discards_in_a_destructor_ends_the_command_too() -> None:
    program = """
import signal, time
from pipelines.job.command_line import run_command
class Executor:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0)  # the handler runs here
def main():
    Executor()
    time.sleep(20)
run_command(main)
"""
    ended = run_python("-c", program, seconds=60)
    assert (ended.code, ended.stderr) == (130, "\ninterrupted; run the same command again to resume\n")


@pytest.mark.parametrize("first", ["SIGTERM", "SIGINT"])
@pytest.mark.processes
def test_a_second_and_a_third_ctrl_c_let_what_is_ending_end(first: str) -> None:
    program = f"""
import signal
from pipelines.job.command_line import run_command
signal.signal(signal.SIGINT, signal.default_int_handler)
def main():
    try:
        signal.raise_signal(signal.{first})
    finally:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        print("processes ended")
run_command(main)
"""
    ended = run_python("-c", program, seconds=60)
    assert (ended.code, ended.stdout) == (130, "processes ended\n")
    assert ended.stderr == "\ninterrupted; run the same command again to resume\n"


@pytest.mark.processes
def test_ctrl_c_that_ends_the_reader_of_the_output_too_is_an_interruption() -> None:
    program = """
import signal, sys, time
from pipelines.job.command_line import run_command
signal.signal(signal.SIGINT, signal.default_int_handler)
def main():
    print("working", flush=True)
    try:
        sys.stdin.readline()
        signal.raise_signal(signal.SIGINT)
    finally:
        print("ending", flush=True)
run_command(main)
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as job:
        assert job.stdin is not None
        assert job.stdout is not None
        assert job.stdout.readline() == b"working\n"
        job.stdout.close()  # as that of tee
        job.stdin.close()
        assert job.wait(timeout=40) == 130


WORK_ON_A_TERMINAL = """
import os, signal, subprocess, sys, time
from pathlib import Path
from pipelines.job.command_line import run_command
from pipelines.job.interruption import processes_ignore_closed_terminal
from pipelines.job.ray_session import native_stderr_to_log
from pipelines.run.storage import Storage
def main():
    try:
        with native_stderr_to_log(Storage.at(sys.argv[1] + ".run")):
            work()
    finally:
        os.write(2, b"ended")  # as libraries do
def work():
    with processes_ignore_closed_terminal():
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        print("working", flush=True)
        time.sleep(50)
        outcome = "not interrupted"
    except KeyboardInterrupt:
        print("ending", flush=True)  # as a display that is taken down
        time.sleep(1)
        outcome = f"interrupted, helper {'runs' if helper.poll() is None else 'died'}"
        raise
    finally:
        helper.kill()
        Path(sys.argv[1]).write_text(outcome)
run_command(main)
"""


def on_a_terminal(program: str, *words: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start a program on a terminal of its own; return it and the terminal's other end, which closes it."""
    ours, its = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        cwd=ROOT,
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    )
    os.close(its)
    shown = b""
    while not shown.endswith(b"\n"):  # a line that is closed half-way fails in the process
        shown += os.read(ours, 1)
    assert shown == b"working\r\n"
    return process, ours


@pytest.mark.processes
@pytest.mark.parametrize("signal_first", [False, True])
def test_a_closed_terminal_interrupts_a_command_and_spares_its_helpers(tmp_path: Path, signal_first: bool) -> None:
    process, terminal = on_a_terminal(WORK_ON_A_TERMINAL, str(tmp_path / "outcome"))
    if not signal_first:
        os.close(terminal)
    os.killpg(process.pid, signal.SIGHUP)  # as shells do with all processes of their jobs
    if signal_first:  # as when a whole session is ended
        shown = b""
        while b"interrupted;" not in shown:
            shown += os.read(terminal, 100)
        os.close(terminal)
    assert process.wait(timeout=40) == 130
    assert (tmp_path / "outcome").read_text() == "interrupted, helper runs"


@pytest.mark.processes
def test_under_nohup_a_closed_terminal_changes_nothing(tmp_path: Path) -> None:
    program = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"  # as nohup does
    work = WORK_ON_A_TERMINAL.replace("sleep(50)", "sleep(1)").replace('os.write(2, b"ended")', "pass")
    process, terminal = on_a_terminal(program + work, str(tmp_path / "o"))
    os.close(terminal)
    assert process.wait(timeout=40) == 0
    assert (tmp_path / "o").read_text() == "not interrupted"


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_a_local_cluster_that_hangs_while_it_starts_holds_nobody(tmp_path: Path) -> None:
    job = subprocess.Popen(
        [sys.executable, "pipelines/prepare_dataset.py", "--data", "embedded", "--run-dir", str(tmp_path / "run")],
        cwd=ROOT,
        env=ray_environment(""),
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    raylets: list[psutil.Process] = []
    children: list[psutil.Process] = []
    try:
        while not raylets:
            assert job.poll() is None
            time.sleep(0.05)
            children = family(job)
            raylets = [process for process in children if process.name() == "raylet"]
        raylets[0].suspend()
        time.sleep(3)  # the command waits for its answer
        children = family(job)
        interrupted = time.monotonic()
        os.kill(job.pid, signal.SIGTERM)
        _, errors = job.communicate(timeout=60)
        assert time.monotonic() - interrupted < LONGEST_SECONDS
        assert (job.returncode, errors.count(b"interrupted; run the same command again to resume")) == (130, 1)
        assert not psutil.wait_procs(children, timeout=LONGEST_SECONDS)[1]
    finally:
        job.kill()
        end_all(children)
