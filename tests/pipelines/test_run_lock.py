"""One job at a time on a run directory, and none shut out by a dead one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import pipelines.run_lock
from pipelines.errors import UserError
from pipelines.run_lock import LOCK, only_job_on
from pipelines.storage import Storage

HOLD = """
import sys, time
from pipelines.run_lock import only_job_on
from pipelines.storage import Storage
with only_job_on(Storage.at(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_job_is_refused_by_name_until_the_first_is_dead(tmp_path: Path) -> None:
    run = Storage.at(str(tmp_path / "run"))
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, run.root], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"in use by another job \(process {holder.pid} on "), only_job_on(run):
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with only_job_on(run):
        pass
    with only_job_on(run):
        pass


def test_on_an_object_store_a_claim_is_released_or_forgotten_when_stale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Storage.at("memory://bucket/lease")
    assert not run.is_local
    with only_job_on(run), pytest.raises(UserError, match="in use by another job"), only_job_on(run):
        pass
    assert not run.exists(LOCK)
    with only_job_on(run):
        left = run.read_json(LOCK)
    run.write_json(LOCK, left)  # as a killed job leaves it
    with pytest.raises(UserError, match="in use"), only_job_on(run):
        pass
    monkeypatch.setattr(pipelines.run_lock, "STALE_SECONDS", 0.0)
    with only_job_on(run):
        pass
