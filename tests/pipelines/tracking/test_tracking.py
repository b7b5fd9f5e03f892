"""MLflow follows the run directory: nothing is lost or sent twice, and no failure of MLflow reaches the run."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.errors import UserError
from pipelines.report.write import write_report
from pipelines.run.dataset import read_manifest
from pipelines.run.directory import claim
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.tracking.follower import Tracker
from pipelines.tracking.store import tracking_uri_for
from tests.pipelines.report.made_runs import ENSEMBLE, made_run, predict
from tests.servers import free_port, mlflow_with_password, wait_for

pytestmark = pytest.mark.timeout(120)
RECIPE = Recipe(replicas=2)
TURN_SECONDS = 1.0
SINCE_MS = 1_700_000_000_000


@pytest.fixture
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.tracking.follower.FOLLOW_SECONDS", TURN_SECONDS)


@pytest.fixture
def run(tmp_path: Path) -> Storage:
    (tmp_path / "run").mkdir()
    claim(Storage.at(str(tmp_path / "run")), "recipe", RECIPE.to_dict())
    return made_run(tmp_path / "run")


def store_of(run: Storage) -> str:
    return f"sqlite:///{run.root}/mlflow.db"


def write_lines(run: Storage, name: str, lines: list[dict[str, object]]) -> None:
    run.write(name, "".join(json.dumps(line) + "\n" for line in lines).encode())


def write_epochs(run: Storage, replica: int, epochs: int, **more: object) -> None:
    lines = [
        {
            "epoch": epoch,
            "time_ms": SINCE_MS + epoch,
            "host": "here",
            "learning_rate": 0.1 / epoch,
            "val_top1_error": 50.0 - epoch,
            "val_top1_error_raw_weights": 60.0 - epoch,
            "train_loss_logits": 1.0 / epoch,
            **more,
        }
        for epoch in range(1, epochs + 1)
    ]
    write_lines(run, f"replicas/{replica}/metrics.jsonl", lines)


def write_result(run: Storage) -> None:
    predict(run, list(range(6)))
    write_report(run, ENSEMBLE)


def write_steps(run: Storage, replica: int, steps: int) -> None:
    lines: list[dict[str, object]] = [
        {"step": step, "time_ms": SINCE_MS + step, "step/loss_logits": 1 / step, "step/learning_rate": 0.1}
        for step in range(1, steps + 1)
    ]
    write_lines(run, f"replicas/{replica}/steps/00000.jsonl", lines)


def write_load(run: Storage, folder: str, host: str, samples: int) -> None:
    lines: list[dict[str, object]] = [
        {"time_ms": SINCE_MS + 10_000 * n, f"system/{host}/system_memory_usage_percentage": 40.0 + n}
        for n in range(samples)
    ]
    write_lines(run, f"{folder}/{host}/{SINCE_MS}.jsonl", lines)


def follow(run: Storage, uri: str, phases: dict[int, str], succeeded: bool | None = None) -> Tracker:
    with Tracker(run, RECIPE, read_manifest(run), uri) as tracker:
        tracker.update(phases)
        if succeeded is not None:
            tracker.finish(succeeded)
    return tracker


def runs_of(uri: str) -> dict[str, object]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("googlenet-ensemble")
    found = client.search_runs([experiment.experiment_id])
    by_role = {run.data.tags["googlenet_role"]: run for run in found}
    assert len(found) == len(by_role)
    return by_role


def errors(uri: str, replica: int) -> list[tuple[int, float]]:
    run = runs_of(uri)[f"replica_{replica}"]
    history = MlflowClient(uri).get_metric_history(run.info.run_id, "val_top1_error")  # type: ignore[attr-defined]
    return [(metric.step, metric.value) for metric in history]


def history(uri: str, role: str, metric: str) -> list[tuple[int, float, int]]:
    run = runs_of(uri)[role]
    found = MlflowClient(uri).get_metric_history(run.info.run_id, metric)  # type: ignore[attr-defined]
    return [(metric.step, metric.value, metric.timestamp) for metric in found]


def test_an_interrupted_run_goes_on_in_the_same_mlflow_runs_without_doubled_epochs(run: Storage) -> None:
    uri = store_of(run)
    write_epochs(run, 0, 2)
    follow(run, uri, {0: "training", 1: "waiting"})
    first = runs_of(uri)
    assert first["ensemble"].info.status == "FAILED"  # type: ignore[attr-defined]
    assert first["replica_0"].info.status == "KILLED"  # type: ignore[attr-defined]
    write_epochs(run, 0, 4)
    write_epochs(run, 1, 1, alarm="head logits is dead")
    run.write("replicas/1/failure.txt", b"Traceback\nValueError: of another kind")
    write_result(run)
    follow(run, uri, {0: "done", 1: "failed"}, succeeded=True)
    second = runs_of(uri)
    assert {n: r.info.run_id for n, r in first.items()} == {n: r.info.run_id for n, r in second.items()}  # type: ignore[attr-defined]
    # With the times at which they were measured, whenever they were sent.
    assert history(uri, "replica_0", "val_top1_error") == [(e, 50.0 - e, SINCE_MS + e) for e in (1, 2, 3, 4)]
    assert history(uri, "replica_0", "val_top1_error_raw_weights") == [
        (e, 60.0 - e, SINCE_MS + e) for e in (1, 2, 3, 4)
    ]
    assert errors(uri, 1) == [(1, 49.0)]
    tags = second["replica_1"].data.tags  # type: ignore[attr-defined]
    assert tags["alarm"] == "head logits is dead"
    assert tags["failure"] == "ValueError: of another kind"
    assert "of another kind" in tags["mlflow.note.content"]
    statuses = {name: r.info.status for name, r in second.items()}  # type: ignore[attr-defined]
    assert statuses == {"ensemble": "FINISHED", "replica_0": "FINISHED", "replica_1": "FAILED"}


def test_the_parent_holds_the_tables_cells_the_report_and_a_note_that_fits(run: Storage) -> None:
    write_result(run)
    follow(run, store_of(run), {0: "done", 1: "done"}, succeeded=True)
    parent = runs_of(store_of(run))["ensemble"]
    metrics = parent.data.metrics  # type: ignore[attr-defined]
    # Replica 0 is wrong on one image of six, replica 1 on three, their average on one.
    assert metrics["top1_error/1x1"] == pytest.approx(100 * 4 / 12)
    assert metrics["top1_error/2x144"] == pytest.approx(100 / 6)
    assert {f"top5_error/{models}x{crops}" for models in (1, 2) for crops in (1, 10, 144)} < metrics.keys()
    assert {"brier_score/2x144", "evaluation/predictor_seconds"} < metrics.keys()
    note = parent.data.tags["mlflow.note.content"]  # type: ignore[attr-defined]
    assert "16.67 / 16.67 % with 2 x 144 (models x crops) on 6 images" in note
    assert len(note) < 8000
    [train, val] = parent.inputs.dataset_inputs  # type: ignore[attr-defined]
    assert (train.tags[0].value, val.tags[0].value) == ("training", "evaluation")
    assert json.loads(val.dataset.profile)["images"] == 6
    client = MlflowClient(store_of(run))
    artifacts = client.list_artifacts(parent.info.run_id, "report")  # type: ignore[attr-defined]
    assert {artifact.path for artifact in artifacts} == {f"report/{name}" for name in run.files("report")}


def test_the_load_of_each_node_is_sent_once(run: Storage) -> None:
    uri = store_of(run)
    write_load(run, "replicas/0/system", "a", 3)
    write_load(run, "replicas/0/system", "b", 2)
    write_load(run, "system", "head", 4)
    follow(run, uri, {0: "training", 1: "waiting"})
    write_load(run, "replicas/0/system", "a", 5)
    follow(run, uri, {0: "training", 1: "waiting"})
    seen = [
        history(uri, role, f"system/{host}/system_memory_usage_percentage")
        for role, host in (("replica_0", "a"), ("replica_0", "b"), ("ensemble", "head"))
    ]
    for samples, found in zip((5, 2, 4), seen, strict=True):
        assert [(value, time) for _, value, time in found] == [
            (40.0 + n, SINCE_MS + 10_000 * n) for n in range(samples)
        ]


def test_a_server_that_is_away_stops_nothing_and_is_told_once(run: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    write_epochs(run, 0, 3)
    tracker = follow(run, "http://127.0.0.1:9", {0: "done", 1: "training"}, succeeded=False)
    assert not tracker.in_step
    assert capsys.readouterr().out.count("warning: MLflow at http://127.0.0.1:9") == 1
    assert follow(run, store_of(run), {0: "done", 1: "training"}).in_step
    assert errors(store_of(run), 0) == [(1, 49.0), (2, 48.0), (3, 47.0)]


def start_server(store: Path, port: int, largest_file_bytes: int | None = None) -> subprocess.Popen[bytes]:
    store.mkdir(exist_ok=True)
    options = f"--workers 1 --host 127.0.0.1 --port {port} --artifacts-destination {store}/artifacts"
    backend = ["--backend-store-uri", f"sqlite:///{store}/mlflow.db"]

    def limit() -> None:
        if largest_file_bytes is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file_bytes, largest_file_bytes))

    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *options.split(), *backend],
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=limit,  # noqa: PLW1509
    )
    wait_for(f"http://127.0.0.1:{port}/health", server)
    return server


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


def test_a_failure_that_is_mended_is_not_told_any_more(run: Storage) -> None:
    run.write("replicas/1/failure.txt", b"ValueError: no")
    follow(run, store_of(run), {0: "done", 1: "failed"}, succeeded=False)
    assert runs_of(store_of(run))["replica_1"].data.tags["failure"] == "ValueError: no"  # type: ignore[attr-defined]
    run.delete("replicas/1/failure.txt")
    follow(run, store_of(run), {0: "done", 1: "done"}, succeeded=False)
    assert "failure" not in runs_of(store_of(run))["replica_1"].data.tags  # type: ignore[attr-defined]


def test_uris_are_made_absolute_and_those_with_passwords_refused(
    tmp_path: Path, run: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tracking_uri_for(run, "sqlite:///other.db") == f"sqlite:///{tmp_path}/other.db"
    assert tracking_uri_for(run) == f"sqlite:///{tmp_path}/mlflow.db"
    assert follow(run, tracking_uri_for(run, "sqlite:///other.db"), {0: "done", 1: "done"}, succeeded=False).in_step
    assert (tmp_path / "other.db").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert tracking_uri_for(run) == "http://server:5000"
    with pytest.raises(UserError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        tracking_uri_for(run, "https://me:secret@server")
    assert "secret" not in str(refused.value)


@pytest.mark.processes
def test_a_server_that_dies_and_comes_back_gets_every_step_once(
    run: Storage, tmp_path: Path, short_turns: None
) -> None:
    port = free_port()
    uri, store = f"http://127.0.0.1:{port}", tmp_path / "store"
    server = start_server(store, port)
    try:
        with Tracker(run, RECIPE, read_manifest(run), uri) as tracker:
            tracker.update({0: "training", 1: "waiting"})
            write_steps(run, 0, 20)
            wait_until(lambda: MlflowClient(uri).get_experiment_by_name("googlenet-ensemble") is not None)
            wait_until(lambda: len(runs_of(uri)) == 3 and len(steps_of(uri)) == 20)
            stop_server(server)
            write_steps(run, 0, 40)
            time.sleep(2 * TURN_SECONDS)
            write_steps(run, 0, 50)
            server = start_server(store, port)
            write_result(run)
            tracker.update({0: "done", 1: "done"})
            tracker.finish(succeeded=True)
        assert tracker.in_step
        assert steps_of(uri) == list(range(1, 51))
        assert runs_of(uri)["ensemble"].info.status == "FINISHED"  # type: ignore[attr-defined]
    finally:
        stop_server(server)


@pytest.mark.processes
def test_a_server_whose_disk_is_full_gets_everything_once_there_is_room(
    run: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    uri, store = f"http://127.0.0.1:{port}", tmp_path / "store"
    store.mkdir()
    # Creating the runs has enough room; what follows does not.
    follow(run, f"sqlite:///{store}/mlflow.db", {0: "training", 1: "waiting"})
    server = start_server(store, port, largest_file_bytes=(store / "mlflow.db").stat().st_size)
    try:
        write_steps(run, 0, 2000)
        assert not follow(run, uri, {0: "training", 1: "waiting"}).in_step
        assert capsys.readouterr().out.count(f"warning: MLflow at {uri}") == 1
        stop_server(server)
        server = start_server(store, port)
        assert follow(run, uri, {0: "done", 1: "done"}, succeeded=False).in_step
        assert steps_of(uri) == list(range(1, 2001))
    finally:
        stop_server(server)


class SlowDoor:
    """A proxy that delays a server's answers, so the client cannot know that its request has arrived."""

    def __init__(self, to_port: int, seconds: float) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.seconds, self._to = self._listener.getsockname()[1], seconds, to_port
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self._listener.accept()
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


@pytest.mark.processes
def test_what_a_slow_server_did_receive_is_not_sent_twice(
    run: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_turns: None
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    port = free_port()
    server = start_server(tmp_path / "store", port)
    try:
        door = SlowDoor(port, seconds=0.0)
        uri = f"http://127.0.0.1:{door.port}"
        assert follow(run, uri, {0: "training", 1: "waiting"}).in_step
        write_steps(run, 0, 30)
        write_epochs(run, 0, 3)
        with Tracker(run, RECIPE, read_manifest(run), uri) as tracker:
            tracker.update({0: "training", 1: "waiting"})
            wait_until(lambda: tracker.page != "")
            wait_until(lambda: len(steps_of(f"http://127.0.0.1:{port}")) == 30)
            write_steps(run, 0, 60)
            door.seconds = 3.0
            # They arrive, although the follower gets a time-out.
            wait_until(lambda: len(steps_of(f"http://127.0.0.1:{port}")) == 60)
            time.sleep(TURN_SECONDS + 5)  # for the late answer, and another turn
            door.seconds = 0.0
            tracker.finish(succeeded=False)
        assert tracker.in_step
        assert steps_of(uri) == list(range(1, 61))
        assert [epoch for epoch, _ in errors(uri, 0)] == [1, 2, 3]
    finally:
        stop_server(server)


@pytest.mark.processes
def test_a_server_too_slow_for_the_end_of_a_run_is_told(
    run: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short_turns: None
) -> None:
    port = free_port()
    server = start_server(tmp_path / "store", port)
    try:
        door = SlowDoor(port, seconds=0.0)
        monkeypatch.setattr("pipelines.tracking.follower.CLOSE_SECONDS", 2.0)
        with Tracker(run, RECIPE, read_manifest(run), f"http://127.0.0.1:{door.port}") as tracker:
            tracker.update({0: "training", 1: "waiting"})
            wait_until(lambda: tracker.page != "")  # MLflow was up to date before
            door.seconds = 1.0
            tracker.finish(succeeded=False)
        assert not tracker.in_step
    finally:
        stop_server(server)


def follow_in_a_process(root: str, uri: str) -> None:
    run = Storage.at(root)
    tracker = follow(run, uri, {0: "done", 1: "done"}, succeeded=False)
    assert tracker.in_step


@pytest.mark.timeout(300)
@pytest.mark.processes
def test_seven_jobs_at_once_create_a_store_together_and_write_to_it(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    runs = []
    for number in range(7):
        (tmp_path / str(number)).mkdir()
        claim(Storage.at(str(tmp_path / str(number))), "recipe", RECIPE.to_dict())
        runs.append(made_run(tmp_path / str(number)))
        write_steps(runs[-1], 0, 300)
        write_epochs(runs[-1], 1, 5)
    with ProcessPoolExecutor(7, get_context("spawn")) as processes:
        list(processes.map(follow_in_a_process, [run.root for run in runs], [uri] * 7))
    client = MlflowClient(uri)
    experiments = [found for found in client.search_experiments() if found.name == "googlenet-ensemble"]
    assert len(experiments) == 1
    found = client.search_runs([experiments[0].experiment_id], max_results=100)
    assert len(found) == 7 * 3
    for child in found:
        role = child.data.tags["googlenet_role"]
        metric, expected = {
            "replica_0": ("step/loss_logits", 300),
            "replica_1": ("val_top1_error", 5),
            "ensemble": ("step/loss_logits", 0),
        }[role]
        steps = [metric.step for metric in client.get_metric_history(child.info.run_id, metric)]
        assert steps == list(range(1, expected + 1))


@pytest.mark.processes
def test_refused_credentials_are_told_with_what_to_do(
    run: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with mlflow_with_password(tmp_path) as (uri, password):
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not the password")
        write_epochs(run, 0, 2)
        assert not follow(run, uri, {0: "done", 1: "done"}, succeeded=False).in_step
        told = capsys.readouterr().out
        assert told.count("warning") == 1
        assert "refuses the credentials" in told
        assert "MLFLOW_TRACKING_PASSWORD" in told
        assert password not in told
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        assert follow(run, uri, {0: "done", 1: "done"}, succeeded=False).in_step
        assert errors(uri, 0) == [(1, 49.0), (2, 48.0)]
