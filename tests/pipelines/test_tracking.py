"""MLflow follows the run directory: nothing lost, nothing twice, and no failure of it reaches the run."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.dataset import Manifest
from pipelines.recipes import Recipe
from pipelines.report import COST_JSON, REPORT_JSON, REPORT_MARKDOWN
from pipelines.run_directory import claim
from pipelines.storage import Storage
from pipelines.tracking import Tracker

pytestmark = pytest.mark.timeout(120)
RECIPE = Recipe(replicas=2)
MANIFEST = Manifest({}, ("a", "b"), {}, "digest", 0)


@pytest.fixture
def run(tmp_path: Path) -> Storage:
    storage = Storage.at(str(tmp_path / "run"))
    claim(storage, "recipe", RECIPE.to_dict())
    return storage


def write_epochs(run: Storage, replica: int, epochs: int) -> None:
    lines = [{"epoch": e, "learning_rate": 0.1 / e, "val_top1_error": 50.0 - e} for e in range(1, epochs + 1)]
    run.write(f"replicas/{replica}/metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())


def write_report_files(run: Storage) -> None:
    row = {"models": 2, "crops": 144, "policy": "144"}
    own = {"models": 2, "crops": 72, "policy": "256+320", "top1_error": 13.0, "top5_error": 2.0}
    scores = {"negative_log_likelihood": 0.4, "brier_score": 0.3, "expected_calibration_error": 0.02}
    table = [{**row, "top1_error": 12.5, "top5_error": 1.0}, own]
    run.write_json(REPORT_JSON, {"table": table, "calibration": [{**row, **scores}]})
    run.write_json(COST_JSON, {"predictor_seconds": 9.5})
    run.write(REPORT_MARKDOWN, b"# table")
    run.write("report/views.png", b"picture")


def write_steps(run: Storage, replica: int, steps: int) -> None:
    lines = [{"step": step, "step/loss_logits": 1 / step, "step/learning_rate": 0.1} for step in range(1, steps + 1)]
    run.write(f"replicas/{replica}/steps/00000.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())


def follow(run: Storage, uri: str, phases: dict[int, str], succeeded: bool | None = None) -> Tracker:
    with Tracker(run, RECIPE, MANIFEST, uri) as tracker:
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


def test_an_interrupted_run_goes_on_in_the_same_mlflow_runs_without_doubled_epochs(run: Storage) -> None:
    uri = f"sqlite:///{run.root}/mlflow.db"
    write_epochs(run, 0, 2)
    follow(run, uri, {0: "training", 1: "waiting"})
    first = runs_of(uri)
    assert first["ensemble"].info.status == "FAILED"  # type: ignore[attr-defined]
    assert first["replica_0"].info.status == "KILLED"  # type: ignore[attr-defined]
    write_epochs(run, 0, 4)
    write_epochs(run, 1, 1)
    line = run.read("replicas/1/metrics.jsonl").decode().replace("}", ', "alarm": "head logits is dead"}')
    run.write("replicas/1/metrics.jsonl", line.encode())
    write_report_files(run)
    follow(run, uri, {0: "done", 1: "failed"}, succeeded=True)
    second = runs_of(uri)
    assert {n: r.info.run_id for n, r in first.items()} == {n: r.info.run_id for n, r in second.items()}  # type: ignore[attr-defined]
    assert errors(uri, 0) == [(e, 50.0 - e) for e in (1, 2, 3, 4)]
    assert errors(uri, 1) == [(1, 49.0)]
    assert second["replica_1"].data.tags["alarm"] == "head logits is dead"  # type: ignore[attr-defined]
    statuses = {name: r.info.status for name, r in second.items()}  # type: ignore[attr-defined]
    assert statuses == {"ensemble": "FINISHED", "replica_0": "FINISHED", "replica_1": "FAILED"}
    assert second["ensemble"].data.metrics == {  # type: ignore[attr-defined]
        "top1_error/2x144": 12.5,
        "top5_error/2x144": 1.0,
        "top1_error/2x256_320px": 13.0,
        "top5_error/2x256_320px": 2.0,
        "negative_log_likelihood/2x144": 0.4,
        "brier_score/2x144": 0.3,
        "expected_calibration_error/2x144": 0.02,
        "evaluation/predictor_seconds": 9.5,
    }
    client = MlflowClient(uri)
    artifacts = client.list_artifacts(second["ensemble"].info.run_id, "report")  # type: ignore[attr-defined]
    assert {artifact.path for artifact in artifacts} == {REPORT_JSON, COST_JSON, REPORT_MARKDOWN, "report/views.png"}


def test_a_server_that_is_away_stops_nothing_and_is_told_once(run: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    write_epochs(run, 0, 3)
    tracker = follow(run, "http://127.0.0.1:9", {0: "done", 1: "training"}, succeeded=False)
    assert not tracker.in_step
    assert capsys.readouterr().out.count("warning: MLflow at http://127.0.0.1:9") == 1
    uri = f"sqlite:///{run.root}/mlflow.db"
    assert follow(run, uri, {0: "done", 1: "training"}).in_step
    assert errors(uri, 0) == [(1, 49.0), (2, 48.0), (3, 47.0)]


def start_server(store: Path, port: int) -> subprocess.Popen[bytes]:
    options = f"--workers 1 --host 127.0.0.1 --port {port} --artifacts-destination {store}/artifacts"
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            *options.split(),
            "--backend-store-uri",
            f"sqlite:///{store}/mlflow.db",
        ],
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"), server)
    return server


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def wait_until(ready: Callable[[], bool], server: subprocess.Popen[bytes] | None = None, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert server is None or server.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)


def stop_server(server: subprocess.Popen[bytes]) -> None:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def test_a_server_that_dies_and_comes_back_gets_every_step_once(run: Storage, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri, store = f"http://127.0.0.1:{port}", tmp_path / "store"
    store.mkdir()
    server = start_server(store, port)

    def steps() -> list[int]:
        child = runs_of(uri)["replica_0"].info.run_id  # type: ignore[attr-defined]
        return [metric.step for metric in MlflowClient(uri).get_metric_history(child, "step/loss_logits")]

    try:
        with Tracker(run, RECIPE, MANIFEST, uri) as tracker:
            tracker.update({0: "training", 1: "waiting"})
            write_steps(run, 0, 20)
            wait_until(lambda: MlflowClient(uri).get_experiment_by_name("googlenet-ensemble") is not None)
            wait_until(lambda: len(runs_of(uri)) == 3 and len(steps()) == 20)
            stop_server(server)
            write_steps(run, 0, 40)
            time.sleep(6)  # more than a turn of the follower
            write_steps(run, 0, 50)
            server = start_server(store, port)
            write_report_files(run)
            tracker.update({0: "done", 1: "done"})
            tracker.finish(succeeded=True)
        assert tracker.in_step
        assert steps() == list(range(1, 51))
        assert runs_of(uri)["ensemble"].info.status == "FINISHED"  # type: ignore[attr-defined]
    finally:
        stop_server(server)
