"""An address at which no usable Ray cluster answers is refused in one line that says what to do."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import grpc
import pytest

from pipelines.errors import UserError
from pipelines.job import ray_address
from pipelines.job.interpreter import SUBMITTED_JOB
from pipelines.job.ray_address import VERSION_CALL, check_address
from tests.commands import ray_environment
from tests.project import ROOT


@pytest.fixture
def listener() -> Iterator[str]:
    """The address of a server that accepts connections and says nothing a Ray cluster would say."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_accept, args=[server], daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def _accept(server: socket.socket) -> None:
    kept = []
    while True:
        try:
            kept.append(server.accept())
        except OSError:
            return


class Hanging(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers the question for the version of Ray, and no other one."""

    def __init__(
        self, ray_version: str, status: grpc.StatusCode, hangs: threading.Event, ended: threading.Event
    ) -> None:
        # The reply of the heads of Ray 2.55 and 2.60.
        about = f'{{"ray_version": "{ray_version}", "python_version": "3.11.7", "ray_init_cluster": false}}'
        self._reply, self._status, self._ended = b"\n\x00\x12" + bytes([len(about)]) + about.encode(), status, ended
        self._hangs = hangs

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self._answer if call.method == VERSION_CALL else self._hang)

    def _answer(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_code(self._status)
        return self._reply

    def _hang(self, _request: bytes, _context: grpc.ServicerContext) -> bytes:
        self._hangs.set()
        self._ended.wait()
        return b""


@contextmanager
def hanging_head(
    ray_version: str, status: grpc.StatusCode = grpc.StatusCode.OK, hangs: threading.Event | None = None
) -> Iterator[str]:
    """Yield the address; ``hangs`` is set once somebody waits for an answer."""
    ended = threading.Event()
    server = grpc.server(ThreadPoolExecutor(4), [Hanging(ray_version, status, hangs or threading.Event(), ended)])
    port = server.add_insecure_port("0.0.0.0:0")  # Ray replaces 127.0.0.1 by this machine's address
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        ended.set()
        server.stop(None).wait()


def leave_address(folder: Path, address: str) -> None:
    """Write the file that ``ray start`` writes."""
    (folder / "ray").mkdir()
    (folder / "ray/ray_current_cluster").write_text(f"{address}\n")


def refusal(address: str, code: int = 2) -> str:
    with pytest.raises(UserError) as refused:
        check_address(address)
    assert refused.value.exit_code == code
    text = str(refused.value)
    assert "\n" not in text
    assert address in text
    return text


def test_a_port_where_nothing_listens_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    text = refusal(address)
    assert "no Ray cluster answers" in text
    assert "unset RAY_ADDRESS" in text


def test_a_submitted_job_whose_head_is_busy_or_restarts_ends_for_another_try(
    listener: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SUBMITTED_JOB, "{}")
    with monkeypatch.context() as patch:
        patch.setattr(ray_address, "ANSWER_SECONDS", 0.2)
        assert "did not answer within 0 seconds" in refusal(listener, code=75)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    assert "no Ray cluster answers" in refusal(address, code=75)
    with hanging_head("2.55.1") as another:  # not even after a restart
        assert "has Ray 2.55.1" in refusal(another, code=2)


def test_a_host_that_does_not_exist_is_told() -> None:
    assert "no Ray cluster answers" in refusal("no-such-host.invalid:6379")


def test_a_port_that_never_answers_is_told(listener: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_address, "ANSWER_SECONDS", 0.2)
    assert "did not answer within 0 seconds" in refusal(listener)


def test_another_service_of_grpc_is_told() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    assert "is not the head of a Ray cluster" in refusal(f"127.0.0.1:{port}")
    server.stop(None).wait()


def test_another_version_of_ray_is_told_with_both() -> None:
    with hanging_head("2.55.1") as address:
        text = refusal(address)
    assert f"has Ray 2.55.1, this environment has Ray {version('ray')}: install the same version" in text


def test_another_version_of_ray_is_told_also_where_ray_finds_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with hanging_head("2.40.0") as address:
        leave_address(tmp_path, address)
        with pytest.raises(UserError, match=f"the cluster at {address} has Ray 2.40.0"):
            check_address("auto")


def test_on_macos_it_is_looked_for_where_ray_leaves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "folders/T"))
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ray_address, "SHORT_FOLDER", tmp_path / "ray")
    with hanging_head("2.40.0") as address:
        leave_address(tmp_path, address)
        with pytest.raises(UserError, match=f"the cluster at {address} has Ray 2.40.0"):
            check_address("auto")


def test_a_usable_cluster_passes_also_one_that_asks_for_a_token_or_beside_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    for status in (grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED):
        with hanging_head(version("ray"), status) as address:
            check_address(address)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://10.0.0.1:8265", "for ray job submit"),
        ("https://ray.example.org", "for ray job submit"),
        ("ray://10.0.0.1:10001", "Ray Client"),
        ("10.0.0.1", "must be HOST:PORT"),
        ("10.0.0.1:port", "must be HOST:PORT"),
        ("10.0.0.1:99999", "must be HOST:PORT"),
    ],
)
def test_an_address_of_another_kind_is_told_with_the_right_one(address: str, expected: str) -> None:
    assert expected in refusal(address)


def test_what_ray_finds_by_itself_is_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    check_address("auto")
    leave_address(tmp_path, "127.0.0.1:1")  # of a cluster that was killed
    check_address("auto")


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "is_imported", "code"),
    # While Ray is imported, and while it waits.
    [("SIGINT", True, 130), ("SIGTERM", False, 130), ("SIGTERM", True, 130), ("", True, 2), ("", True, 75)],
)
def test_a_head_that_hangs_while_ray_connects_holds_nobody(
    tmp_path: Path, name: str, is_imported: bool, code: int
) -> None:
    limit = "" if name else "ray_session.CONNECTION_SECONDS = 2.0; "
    program = f"from pipelines.job import ray_session; {limit}from pipelines.prepare_dataset import _main; "
    program += "from pipelines.job.command_line import run_command; run_command(_main)"
    words = ["--data", "embedded", "--run-dir", str(tmp_path / "run")]
    hangs = threading.Event()
    with hanging_head(version("ray"), hangs=hangs) as address:
        job = subprocess.Popen(
            [sys.executable, "-c", program, *words],
            cwd=ROOT,
            env=ray_environment(address) | ({SUBMITTED_JOB: "{}"} if code == 75 else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Tests that run in the background ignore Ctrl-C, and their child processes would too.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        try:
            assert job.stdout is not None
            connecting = job.stdout.readline()
            assert connecting == f"connecting to the Ray cluster at {address} ...\n", job.communicate(timeout=20)
            if not is_imported:
                time.sleep(1)
            elif name:
                assert hangs.wait(60)
            if name:
                os.kill(job.pid, signal.Signals[name])
            _, errors = job.communicate(timeout=60)
        finally:
            job.kill()
    assert job.returncode == code
    expected = "interrupted; run the same command again to resume" if name else "within 2 seconds: run the command on"
    assert expected in errors
    assert len(errors.strip().splitlines()) == 1
