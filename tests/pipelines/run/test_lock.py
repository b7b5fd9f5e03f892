"""The lock: one job at a time on a run directory, no job blocked by a dead one, and readers that write nothing."""

import errno
import fcntl
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import pipelines.run.lock
from pipelines.errors import UserError
from pipelines.job.command_line import run_command
from pipelines.run.lock import LOCK, RunInUseError, only_job_on, reading
from pipelines.run.storage import Storage
from tests.commands import interrupts_as_before
from tests.others_files import somebody_elses, unchanged
from tests.project import ROOT

HOLD = """
import sys, time
from pipelines.run.lock import only_job_on
from pipelines.run.storage import Storage
with only_job_on(Storage.at(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.processes
def test_a_second_job_is_refused_by_name_until_the_first_is_dead(tmp_path: Path) -> None:
    run = Storage.at(str(tmp_path / "run"))
    holder = subprocess.Popen([sys.executable, "-c", HOLD, run.root], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for lock in (only_job_on, reading):
            with pytest.raises(UserError, match=rf"in use by another job \(process {holder.pid} on "), lock(run):
                pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    # What the killed job wrote about itself is still there.
    with reading(run), pytest.raises(UserError, match="in use by another command, such as replay"), only_job_on(run):
        pass
    with only_job_on(run):
        pass
    with only_job_on(run):
        pass


def test_a_reader_writes_nothing_and_keeps_jobs_and_other_readers_away(tmp_path: Path) -> None:
    run = Storage.at(str(tmp_path / "run"))
    with only_job_on(run):
        pass
    with unchanged(tmp_path):
        for lock in (only_job_on, reading):
            with reading(run), pytest.raises(RunInUseError, match="in use by another command"), lock(run):
                pass
        told = "wait until it ends, or choose another --output-dir$"
        with reading(run), pytest.raises(RunInUseError, match=told), only_job_on(run, "choose another --output-dir"):
            pass


def test_a_disk_on_which_the_lock_cannot_be_written_is_named(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # no file may grow, as on a full disk
    try:
        with pytest.raises(OSError, match=re.escape(str(tmp_path / LOCK))), only_job_on(Storage.at(str(tmp_path))):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_run_on_which_no_job_has_worked_is_read_as_it_is(tmp_path: Path) -> None:
    with unchanged(tmp_path), reading(Storage.at(str(tmp_path))):
        pass


def test_a_run_that_may_only_be_read_is_read(tmp_path: Path) -> None:
    with only_job_on(Storage.at(str(tmp_path / "run"))):
        pass
    with somebody_elses(tmp_path / "run") as folder:
        with reading(Storage.at(str(folder))):
            pass
        with pytest.raises(PermissionError), only_job_on(Storage.at(str(folder))):
            pass


def test_a_run_directory_in_rays_copy_of_the_project_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "runtime_resources/working_dir_files/_ray_pkg_0123/runs/demo"
    with (
        pytest.raises(UserError, match="Ray's copy of the project, which Ray removes: give --run-dir as a URI"),
        only_job_on(Storage.at(str(package))),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_filesystem_without_locks_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / LOCK).touch()
    with reading(Storage.at(str(tmp_path))):  # where no job can run, nothing can disturb
        pass
    with (
        pytest.raises(UserError, match=r"No locks available.*choose a --run-dir"),
        only_job_on(Storage.at(str(tmp_path))),
    ):
        pass


def test_on_an_object_store_a_claim_is_released_or_forgotten_when_it_is_not_renewed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipelines.run.lock, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(pipelines.run.lock, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(pipelines.run.lock, "STALE_SECONDS", 30.0)  # a stall of this process makes no claim stale
    clock = SimpleNamespace(sleep=lambda s: time.sleep(min(s, 0.2)), monotonic=time.monotonic, strftime=time.strftime)
    monkeypatch.setattr(pipelines.run.lock, "time", clock)
    run = Storage.at("memory://bucket/lease")
    assert not run.is_local
    with only_job_on(run), pytest.raises(UserError, match=r"use by another job .* or go$"), only_job_on(run, "go"):
        pass
    with only_job_on(run), pytest.raises(UserError, match="in use by another job"), reading(run):
        pass
    assert not run.exists(LOCK)
    with reading(run):
        assert not run.exists(LOCK)
    with only_job_on(run):
        left = run.read(LOCK)
    monkeypatch.setattr(pipelines.run.lock, "STALE_SECONDS", 0.3)  # nobody renews these
    for remains in (left, b'{"host": "elsewhere", "pid": 1}', b"half of a claim"):  # of a killed job, a local one, torn
        run.write(LOCK, remains)
        started = time.monotonic()
        with only_job_on(run):
            assert time.monotonic() - started > 0.3
    run.write(LOCK, b"")  # left by a job on a disk, and copied to the store: nobody is waited for
    monkeypatch.setattr(pipelines.run.lock, "STALE_SECONDS", 30.0)
    with only_job_on(run):
        pass


def test_a_job_that_is_interrupted_while_it_claims_a_run_takes_its_claim_back(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Storage.at("memory://bucket/interrupted")

    def interrupt(_seconds: float) -> None:
        assert run.exists(LOCK)
        raise KeyboardInterrupt

    clock = SimpleNamespace(sleep=interrupt, monotonic=time.monotonic, strftime=time.strftime)
    monkeypatch.setattr(pipelines.run.lock, "time", clock)
    with pytest.raises(KeyboardInterrupt), only_job_on(run):
        pass
    assert not run.exists(LOCK)


def test_a_job_that_was_taken_for_dead_ends_itself(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipelines.run.lock, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(pipelines.run.lock, "SETTLE_SECONDS", 0.1)
    run = Storage.at("memory://bucket/taken")

    def job() -> int:
        with only_job_on(run):
            while not run.read_json(LOCK)["renewals"]:
                time.sleep(0.01)
            # Right after a renewal: the next one would replace a claim made during it, and that job would be refused.
            run.write_json(LOCK, {"id": "another", "renewals": 0})
            time.sleep(5)
        return 0

    with interrupts_as_before(), pytest.raises(SystemExit) as ended:
        run_command(job)
    # Not that of an interruption, after which cluster/submit.py would submit the job beside the other one.
    assert ended.value.code == UserError.exit_code
    assert run.read_json(LOCK)["id"] == "another"
    told = capfd.readouterr().err.strip()
    assert told.endswith("that job assumed this one to be dead")  # and not that the same command resumes it
    assert "\n" not in told
