"""Jobs whose replicas fail and whose workers die: reported, resumed, and with the same result."""

import shutil
import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import ray

from googlenet.network.arithmetic import FP32
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.train_ensemble import run_job
from pipelines.training.replica import train_replica
from pipelines.training.resources import Resources
from pipelines.training.scheduler import train_replicas
from pipelines.training.task import ReplicaTask
from pipelines.training.validation_plan import ValidationPlan
from tests.pipelines.jobs import arguments, report_of
from tests.prepared import training_here
from tests.servers import ray_processes


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("predictions_here", "store_beside")
def test_a_replica_that_always_fails_leaves_the_others_whole(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str], finished_run: Path,
    prepared_run: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("pipelines.training.scheduler.POLL_SECONDS", 0.1)
    run = Path(shutil.copytree(prepared_run, tmp_path / "run"))
    recipe = replace(tiny_recipe, replicas=2, policies=(1,))
    (run / "replicas").mkdir()
    blocker = run / "replicas/1"
    blocker.write_text("a file where the replica's folder has to be")
    # In one worker, one after the other.
    assert run_job(arguments(run, recipe, max_failures=0, parallel_replicas=1)) == 1
    printed = capsys.readouterr().out
    assert f"replica 1 failed: NotADirectoryError: [Errno 20] Not a directory: '{blocker}/checkpoints'" in printed
    assert "Traceback" not in printed
    ours, reference = (r / "replicas/0/weights.safetensors" for r in (run, finished_run))
    assert ours.read_bytes() == reference.read_bytes()
    assert not (run / "report").exists()
    with training_here():
        assert run_job(arguments(run, recipe, max_failures=0, min_replicas=1, models="ensemble")) == 0
    assert (
        "Only 1 of 2 replicas was evaluated (replica_0); the other one was not finished."
        in (run / "report/report.md").read_text()
    )
    assert [row["models"] for row in report_of(run)["table"]] == [1]
    blocker.unlink()
    train_replica(ReplicaTask(Storage.at(str(run)), recipe, 1))
    ours, reference = (r / "replicas/1/weights.safetensors" for r in (run, finished_run))
    assert ours.read_bytes() == reference.read_bytes()


@pytest.mark.timeout(300)
def test_a_worker_that_is_told_to_end_and_one_that_is_killed_are_replaced_and_change_nothing(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path, prepared_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, undisturbed = (Path(shutil.copytree(prepared_run, tmp_path / name)) for name in ("run", "undisturbed"))
    recipe = replace(tiny_recipe, replicas=2, epochs=10)  # long enough to be killed in on a busy machine
    rarely = ValidationPlan(every_epochs=10)  # validation changes no weight
    for replica in range(2):
        train_replica(ReplicaTask(Storage.at(str(undisturbed)), recipe, replica, validation=rarely))
    ended: list[int] = []
    together: list[int] = []
    workers: set[int] = set()
    not_needed: list[str] = []
    of_earlier_tests = {process.pid for process in ray_processes(ray_cluster, "ray::RayTrainWorker")}

    def end_a_worker(replica: int, number: int) -> None:
        others = {*of_earlier_tests, *ended}
        found: list[psutil.Process] = []
        while not found:  # before an epoch is done: to look at all processes of a machine may take a second
            time.sleep(0.4)
            found = [one for one in ray_processes(ray_cluster, "ray::RayTrainWorker") if one.pid not in others]
        while not (run / f"replicas/{replica}/metrics.jsonl").exists():  # until an epoch is done
            time.sleep(0.02)
        found[0].send_signal(number)
        ended.append(found[0].pid)

    def end_workers() -> None:
        end_a_worker(0, signal.SIGTERM)
        end_a_worker(1, signal.SIGKILL)

    def on_poll(phases: dict[int, str]) -> None:
        together.append(sum(phase in ("starting", "training") for phase in phases.values()))
        for process in ray_processes(ray_cluster, "ray::"):
            with suppress(psutil.NoSuchProcess):
                words = " ".join(process.cmdline())
                workers.update([process.pid] if "ray::RayTrainWorker" in words else [])
                not_needed.extend(kind for kind in ("DatasetManager", "PlacementGroup") if kind in words)

    killer = threading.Thread(target=end_workers, daemon=True)
    killer.start()
    one_at_a_time = Resources(max_failures=2, parallel_replicas=1)
    assert train_replicas(Storage.at(str(run)), recipe, one_at_a_time, FP32, on_poll) == []
    killer.join(timeout=1)
    assert max(together) == 1
    assert not not_needed  # processes that Ray Train would start for each of the workers
    # That of the first replica, the one that took its place until it was killed in the second, and the last one.
    assert len(workers - of_earlier_tests) == 3
    assert set(ended) < workers
    printed = capsys.readouterr().out
    assert "replica 0: its worker received SIGTERM; it wrote a checkpoint of step" in printed
    assert printed.count("restarting it in") == 1  # that of the other one counts as a failure
    for replica in range(2):
        ours, reference = (r / f"replicas/{replica}/weights.safetensors" for r in (run, undisturbed))
        assert ours.read_bytes() == reference.read_bytes()


@pytest.mark.timeout(300)
def test_a_controller_that_is_killed_leaves_no_places_taken(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path, prepared_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worker reserves the whole cluster: nothing could be placed beside what the dead one had reserved."""
    run = Path(shutil.copytree(prepared_run, tmp_path / "run"))
    recipe = replace(tiny_recipe, replicas=1, epochs=10)
    of_earlier_tests = {process.pid for process in ray_processes(ray_cluster, "ray::TrainController")}
    killed: list[int] = []

    def on_poll(phases: dict[int, str]) -> None:
        if not killed and (run / "replicas/0/metrics.jsonl").exists():
            for process in ray_processes(ray_cluster, "ray::TrainController"):
                if process.pid not in of_earlier_tests:
                    process.kill()
                    killed.append(process.pid)

    everything = Resources(ray.cluster_resources()["CPU"], max_failures=1, validation=ValidationPlan(every_epochs=10))
    assert train_replicas(Storage.at(str(run)), recipe, everything, FP32, on_poll) == []
    assert len(killed) == 1
    assert "warning: replica 0: ActorDiedError" in capsys.readouterr().out
    assert (run / "replicas/0/weights.safetensors").exists()
