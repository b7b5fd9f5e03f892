"""A folder whose sockets would have too long paths, a home folder that cannot be written, few processes, and ends."""

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from pipelines.errors import UserError
from pipelines.job import local_ray
from pipelines.job.local_ray import (
    FOLDER_BYTES,
    LONGEST_SOCKET,
    SHORT_FOLDER,
    SOCKET_PATH_BYTES,
    ending_of_new_processes,
    folder_for_ray,
    leave_cluster,
    start_failure,
    token_for_ray,
)
from pipelines.job.ray_session import connected, native_stderr_to_log
from tests.commands import run_python

LONG = "/" + "x" * FOLDER_BYTES


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TMPDIR", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)


def test_a_folder_that_another_user_has_prepared_gets_no_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with native_stderr_to_log(None):
        pass
    own = tmp_path / f"googlenet-{os.getuid()}"
    assert (own / "logs/native_stderr.log").exists()
    assert own.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(os, "getuid", lambda: own.stat().st_uid + 1)  # this one makes the folder of that user
    with pytest.raises(UserError, match="belongs to another user; set TMPDIR"), native_stderr_to_log(None):
        pass


def test_ray_chooses_its_folder_where_its_sockets_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder_for_ray() is None
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.setenv(name, LONG[:-1])
        assert len(LONG[:-1] + LONGEST_SOCKET) == SOCKET_PATH_BYTES
        assert folder_for_ray() is None


def test_a_long_tmpdir_is_replaced_and_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TMPDIR", LONG)
    assert folder_for_ray() == str(SHORT_FOLDER)
    assert capsys.readouterr().out.startswith(f"TMPDIR has more than {FOLDER_BYTES} bytes")
    monkeypatch.setenv("RAY_TMPDIR", "/scratch")
    assert folder_for_ray() is None


def test_the_long_tmpdir_of_macos_is_not_told_since_ray_does_not_read_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("TMPDIR", LONG)
    assert (folder_for_ray(), capsys.readouterr().out) == (None, "")


def test_a_long_folder_that_was_chosen_for_ray_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/ä" + LONG)
    with pytest.raises(UserError, match=f"RAY_TMPDIR has {len(LONG) + 3} bytes.* at most {FOLDER_BYTES}"):
        folder_for_ray()


def test_a_cluster_gets_a_token_where_the_home_folder_cannot_hold_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("HOME", str(tmp_path / "file/home"))
    own = token_for_ray()
    assert len(own["RAY_AUTH_TOKEN"]) == 64
    assert token_for_ray() != own
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert token_for_ray() == {}


def test_ray_keeps_its_own_token_in_a_home_folder_that_can_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert token_for_ray() == {}
    (tmp_path / ".ray/auth_token").write_text("token")
    assert token_for_ray() == {}


def test_a_cluster_that_does_not_start_names_the_limit_on_processes_if_that_is_low(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = Exception("Failed to start GCS.  Last 6 lines of error files:\n======\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(resource, "getrlimit", lambda _limit: (30, 30))
    assert str(start_failure(error)) == (
        "Ray did not start (Failed to start GCS): this user may have 30 processes and threads, too few for Ray: raise "
        "the limit with ulimit -u"
    )
    for limit in (4096, resource.RLIM_INFINITY):
        monkeypatch.setattr(resource, "getrlimit", lambda _limit, limit=limit: (limit, limit))
        assert "(Failed to start GCS): run the same command again; if that" in str(start_failure(error))


@pytest.mark.processes
def test_a_start_that_failed_ends_what_it_started_with_children_and_nothing_else() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        end = ending_of_new_processes()
        with subprocess.Popen(["sh", "-c", "sleep 60 & wait"]) as started:
            while not (children := psutil.Process(started.pid).children()):
                assert started.poll() is None
            end()
        assert not psutil.wait_procs(children, timeout=10)[1]
        assert other.poll() is None
        other.kill()


@pytest.mark.processes
def test_a_process_that_outlives_its_cluster_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_ray, "EXIT_SECONDS", 0.2)
    # Ray's processes hang in their exit too rarely to wait for it: a program of the same name, with a child.
    raylet = tmp_path / local_ray.RAYLET
    raylet.write_text("#!/bin/sh\nsleep 300 &\necho $!\nwait\n")
    raylet.chmod(0o755)
    with (
        subprocess.Popen([raylet], stdout=subprocess.PIPE, text=True) as parent,
        subprocess.Popen(["sleep", "300"]) as other,
    ):
        child = psutil.Process(int(parent.stdout.readline()))  # type: ignore[union-attr]
        leave_cluster()
        assert not psutil.wait_procs([child], timeout=10)[1]
        assert parent.wait(10) == 0  # it ends by itself once its child has
        assert other.poll() is None
        other.kill()


# A cluster that does not know its node yet, by a clock on which Ray's half a minute has passed at the second look.
BUSY = """
import itertools, time, types
import ray._private.node
from pipelines.job.ray_session import connected

fast = itertools.count(step=31)
looks = types.SimpleNamespace(monotonic=lambda: next(fast), sleep=time.sleep, time=time.time)
real_init, real_get_node, tries = ray.init, ray._private.services.get_node, []

def init(**options):
    tries.append(options)
    ray._private.node.time = looks if len(tries) == 1 else time
    return real_init(**options)

def get_node(*of_node):
    if len(tries) == 1:
        raise RuntimeError("the node is not there yet")
    return real_get_node(*of_node)

ray.init, ray._private.services.get_node = init, get_node
with connected(num_cpus=1):
    print("tries", len(tries), "CPUs", ray.cluster_resources()["CPU"])
"""


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_ray_is_started_once_more_on_a_machine_that_is_too_busy_for_its_deadline() -> None:
    ended = run_python("-c", BUSY)
    assert ended.code == 0, ended.stderr
    assert "trying once more ..." in " ".join(ended.stdout.split())
    assert ended.stdout.splitlines()[-2:] == ["tries 2 CPUs 1.0", "stopping Ray ..."]


def test_ray_that_is_too_late_twice_is_not_started_a_third_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    tries: list[object] = []

    def init(**options: object) -> None:
        tries.append(options)
        raise Exception("The current node timed out during startup.")  # noqa: TRY002  # what the real one says above

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(UserError, match=r"^Ray did not start \(The current node timed out during startup"), connected():
        pass
    assert len(tries) == 2
    assert "trying once more ..." in " ".join(capsys.readouterr().out.split())
