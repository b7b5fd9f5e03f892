"""MLflow servers that die, are full, slow, or refuse: the run loses nothing, and nothing is sent twice."""

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from pipelines import review
from pipelines.run.claims import claim
from pipelines.run.storage import Storage
from pipelines.tracking.runs import Experiment
from tests.commands import run_python
from tests.pipelines.report.made_runs import made_run
from tests.pipelines.tracking.followed_runs import (
    RECIPE,
    TURN_SECONDS,
    copy_result,
    errors,
    follow,
    history,
    runs_of,
    tracker_of,
    write_epochs,
    write_steps,
)
from tests.servers import free_port, wait_for

pytestmark = pytest.mark.timeout(120)
JOBS = 3


def start_server(store: Path, port: int) -> subprocess.Popen[bytes]:
    options = f"--workers 1 --host 127.0.0.1 --port {port} --artifacts-destination {store}/artifacts"
    backend = ["--backend-store-uri", f"sqlite:///{store}/mlflow.db"]

    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *options.split(), *backend],
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server)
    except BaseException:
        stop_server(server)
        raise
    return server


@dataclass
class Server:
    """A server that outlives a test."""

    port: int
    database: Path
    process: subprocess.Popen[bytes]

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start_again(self) -> None:
        self.process = start_server(self.database.parent, self.port)

    def limit_files(self, soft_bytes: int) -> None:
        """Let the server write no longer files than that: Python ignores the signal, and gets an error."""
        first = psutil.Process(self.process.pid)
        for process in [first, *first.children(recursive=True)]:
            process.rlimit(resource.RLIMIT_FSIZE, (soft_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.fixture(scope="module")
def lasting_server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    store, port = tmp_path_factory.mktemp("store"), free_port()
    shutil.copy(empty_store, store)
    lasting = Server(port, store / "mlflow.db", start_server(store, port))
    yield lasting
    stop_server(lasting.process)


@pytest.fixture
def server(lasting_server: Server) -> Iterator[Server]:
    """A server without runs; to start one takes longer than what a test does with it."""
    yield lasting_server
    lasting_server.limit_files(resource.getrlimit(resource.RLIMIT_FSIZE)[0])
    client = MlflowClient(lasting_server.uri)
    for run in runs_of(lasting_server.uri).values():
        client.delete_run(run.info.run_id)


def wait_until(ready: Callable[[], bool], server: subprocess.Popen[bytes] | None = None, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert server is None or server.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)


def stop_server(server: subprocess.Popen[bytes]) -> None:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def steps_of(uri: str) -> list[int]:
    return [step for step, _, _ in history(uri, "replica_0", "step/loss_logits")]


class SlowDoor:
    """A proxy that delays a server's answers, so the client cannot know that its request has arrived."""

    def __init__(self, to_port: int, seconds: float) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.seconds, self._to = self._listener.getsockname()[1], seconds, to_port
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Accept no further connection; those that there are end with the server's or the client's end of them."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            server = socket.create_connection(("127.0.0.1", self._to))
            threading.Thread(target=self._copy, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._copy, args=(server, client, True), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, is_late: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if is_late:
                    time.sleep(self.seconds)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


# Follows each run in a process of its own; MLflow is imported once, not by each.
FOLLOW_AT_ONCE = """
import os, sys
from pipelines.run.storage import Storage
from tests.pipelines.tracking.followed_runs import follow
uri, *roots = sys.argv[1:]
for root in roots:
    if not os.fork():
        sys.exit(not follow(Storage.at(root), uri, {0: "done", 1: "done"}, succeeded=False).in_step)
sys.exit(any([os.wait()[1] for _ in roots]))
"""


@pytest.mark.processes
def test_the_page_of_all_runs_on_a_server_has_the_columns_of_results(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Experiment(server.uri).show_columns(["metrics.`top1_error/7x144`"])
    monkeypatch.setattr("sys.argv", ["review.py", "--tracking-uri", f"{server.uri}/"])
    review._main()  # nothing is opened here
    [line] = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"MLflow: {server.uri}/#/experiments/\d+/runs\?.*&viewStateShareKey=results", line)


@pytest.mark.processes
def test_a_server_that_dies_and_comes_back_gets_every_step_once(
    run: Storage, reported_run: Path, server: Server, short_turns: None
) -> None:
    uri = server.uri
    with ThreadPoolExecutor() as pool, tracker_of(run, uri) as tracker:
        tracker.update({0: "training", 1: "waiting"})
        write_steps(run, 0, 20)
        wait_until(lambda: MlflowClient(uri).get_experiment_by_name("googlenet-ensemble") is not None)
        wait_until(lambda: len(runs_of(uri)) == 3 and len(steps_of(uri)) == 20)
        stop_server(server.process)
        write_steps(run, 0, 40)
        time.sleep(2 * TURN_SECONDS)
        write_steps(run, 0, 50)
        copy_result(reported_run, run)
        tracker.update({0: "done", 1: "done"})
        tracker.finish(succeeded=True)
        # It takes seconds to start, so it is still away at the first attempt to send the end.
        back = pool.submit(server.start_again)
    back.result()
    assert tracker.in_step
    assert steps_of(uri) == list(range(1, 51))
    assert runs_of(uri)["ensemble"].info.status == "FINISHED"


@pytest.mark.processes
def test_a_server_whose_disk_is_full_gets_everything_once_there_is_room(
    run: Storage, server: Server, capsys: pytest.CaptureFixture[str], short_pauses: None
) -> None:
    uri = server.uri
    # Creating the runs has enough room; what follows does not.
    assert follow(run, uri, {0: "training", 1: "waiting"}).in_step
    server.limit_files(server.database.stat().st_size)
    write_steps(run, 0, 2000)
    assert not follow(run, uri, {0: "training", 1: "waiting"}).in_step
    # Once for each kind of failure: a slow answer of the server may be told beside its full disk.
    kinds = re.findall(rf"^warning: MLflow at {uri}: ([^:;]*)", capsys.readouterr().out, re.MULTILINE)
    assert kinds
    assert len(kinds) == len(set(kinds))
    server.limit_files(resource.getrlimit(resource.RLIMIT_FSIZE)[0])
    assert follow(run, uri, {0: "done", 1: "done"}, succeeded=False).in_step
    assert steps_of(uri) == list(range(1, 2001))


@pytest.mark.processes
def test_what_a_slow_server_did_receive_is_not_sent_twice_and_one_too_slow_for_the_end_of_a_run_is_told(
    run: Storage, server: Server, monkeypatch: pytest.MonkeyPatch, short_turns: None,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    with closing(SlowDoor(server.port, seconds=0.0)) as door:
        uri = f"http://127.0.0.1:{door.port}"
        assert follow(run, uri, {0: "training", 1: "waiting"}).in_step
        write_steps(run, 0, 30)
        write_epochs(run, 0, 3)
        with tracker_of(run, uri) as tracker:
            tracker.update({0: "training", 1: "waiting"})
            wait_until(lambda: tracker.page != "")
            wait_until(lambda: len(steps_of(server.uri)) == 30)
            write_steps(run, 0, 60)
            door.seconds = 3.0
            # They arrive, although the follower gets a time-out.
            wait_until(lambda: len(steps_of(server.uri)) == 60)
            wait_until(lambda: "; will try again" in capsys.readouterr().out)
            time.sleep(TURN_SECONDS)  # the next turn has begun
            door.seconds = 0.0
            tracker.finish(succeeded=False)
        assert tracker.in_step
        assert steps_of(uri) == list(range(1, 61))
        assert [epoch for epoch, _ in errors(uri, 0)] == [1, 2, 3]
        monkeypatch.setattr("pipelines.tracking.follower.CLOSE_SECONDS", 2.0)
        with tracker_of(run, uri) as tracker:
            tracker.update({0: "training", 1: "waiting"})
            wait_until(lambda: tracker.page != "")  # MLflow was up to date before
            door.seconds = 1.0
            tracker.finish(succeeded=False)
        assert not tracker.in_step


@pytest.mark.timeout(300)
@pytest.mark.processes
def test_jobs_that_start_at_once_create_a_store_together_and_write_to_it(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    runs = []
    for number in range(JOBS):
        (tmp_path / str(number)).mkdir()
        claim(Storage.at(str(tmp_path / str(number))), "recipe", RECIPE.to_dict())
        runs.append(made_run(tmp_path / str(number)))
        write_steps(runs[-1], 0, 300)
        write_epochs(runs[-1], 1, 5)
    ended = run_python("-c", FOLLOW_AT_ONCE, uri, *(run.root for run in runs))
    assert ended.code == 0, ended.stderr
    client = MlflowClient(uri)
    experiments = [found for found in client.search_experiments() if found.name == "googlenet-ensemble"]
    assert len(experiments) == 1
    found = client.search_runs([experiments[0].experiment_id], max_results=100)
    assert len(found) == JOBS * 3
    for child in found:
        role = child.data.tags["googlenet_role"]
        metric, expected = {
            "replica_0": ("step/loss_logits", 300),
            "replica_1": ("val_top1_error", 5),
            "ensemble": ("step/loss_logits", 0),
        }[role]
        steps = [metric.step for metric in client.get_metric_history(child.info.run_id, metric)]
        assert steps == list(range(1, expected + 1))
