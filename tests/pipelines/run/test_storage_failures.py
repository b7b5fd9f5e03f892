"""A full or missing storage and a damaged shard: one clear error, and nothing that was written is lost."""

import errno
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from googlenet.images.records import RecordsError
from pipelines.errors import UserError
from pipelines.evaluation.evaluate import evaluate_run
from pipelines.evaluation.predictors import PredictorOptions
from pipelines.job.command_line import run_command
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.run.storage_failures import STORE_FAILURES, is_outage, storage_failure
from pipelines.training.replica import train_replica
from pipelines.training.task import ReplicaTask
from pipelines.training.trainer import _failure

pytestmark = pytest.mark.timeout(300)
SMALL_DISK_BYTES = 24 << 20


def test_code_that_continues_without_its_storage_hides_no_bug() -> None:
    assert issubclass(pa.ArrowInvalid, STORE_FAILURES)
    assert not issubclass(UnicodeEncodeError, STORE_FAILURES)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.processes
def test_a_full_disk_is_named_and_once_there_is_room_the_replica_is_completed(
    prepared_run: Path, trained_run: Path, tiny_recipe: Recipe, small_disk: Path
) -> None:
    """What Ray Train passes on of such an error is in test_job_failures.py."""
    run = Path(shutil.copytree(prepared_run, small_disk / "run"))
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - 400_000))
    task = ReplicaTask(Storage.at(str(run)), replace(tiny_recipe, replicas=1), 0)
    with pytest.raises(OSError) as full:
        train_replica(task)
    failure = _failure(0, full.value)
    assert failure.reason.startswith(f"OSError: [Errno 28] No space left on device: '{run}/replicas/0/")
    assert failure.is_explained  # the terminal shows no traceback
    ballast.unlink()
    train_replica(task)
    ours, reference = (r / "replicas/0/weights.safetensors" for r in (run, trained_run))
    assert ours.read_bytes() == reference.read_bytes()


def test_a_run_directory_that_vanishes_is_not_begun_anew(
    finished_run: Path, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run / "dataset", run / "dataset")

    def unplug(*_: object) -> dict[str, float]:
        while not list(run.glob("replicas/0/checkpoints/*.safetensors")):
            time.sleep(0.01)  # it is written in parallel with the validation
        shutil.rmtree(run)
        return {}

    monkeypatch.setattr("pipelines.training.validation.Validation.errors", unplug)
    with pytest.raises(UserError, match=f"the run directory {run} has vanished"):
        train_replica(ReplicaTask(Storage.at(str(run)), replace(tiny_recipe, epochs=1), 0))
    assert not list(run.glob("**/*.safetensors"))


def test_a_shard_that_breaks_during_the_evaluation_is_named(
    ray_cluster: str, finished_run: Path, tiny_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    shutil.rmtree(run / "predictions")
    shard = run / "dataset/val/00001.parquet"
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 255  # the footer stays intact
    shard.write_bytes(data)

    def evaluate() -> int:
        evaluate_run(Storage.at(str(run)), tiny_recipe, PredictorOptions(number=1))
        return 0

    with pytest.raises(SystemExit) as ended:
        run_command(evaluate)
    assert ended.value.code == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {shard} is damaged: ")
    assert "Traceback" not in printed


def test_other_errors_keep_their_traceback() -> None:
    assert storage_failure(ValueError("a bug")) is None
    assert storage_failure(OSError(errno.ENOENT, "a bug of ours, perhaps")) is None
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device", "/disk/file")
    assert storage_failure(wrapped) == "[Errno 28] No space left on device: '/disk/file'"
    # As of folders that macOS keeps from a terminal, and of files that are made immutable.
    forbidden = PermissionError(errno.EPERM, "Operation not permitted", "/Documents/run")
    assert storage_failure(forbidden) == "[Errno 1] Operation not permitted: '/Documents/run'"
    assert storage_failure(RecordsError("a shard is damaged")) == "a shard is damaged"
    # As Ray Data passes it on: text only, and Python has its own class for the number.
    refused = RuntimeError("task failed\nPermissionError: [Errno 13] Permission denied: '/photos/a.jpg'\nmore")
    assert storage_failure(refused) == "[Errno 13] Permission denied: '/photos/a.jpg'"
    assert storage_failure(RuntimeError("FileNotFoundError: [Errno 2] a bug of ours, perhaps")) is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError("When reading information for key 'a.jpg': AWS Error NETWORK_CONNECTION during GetObject"), True),
        (OSError(errno.ETIMEDOUT, "Connection timed out", "/nfs/a.jpg"), True),
        (OSError(errno.ENOTCONN, "Transport endpoint is not connected", "/mounted/a.jpg"), True),
        (TimeoutError("timed out"), True),
        (OSError(errno.EACCES, "Permission denied", "/photos/a.jpg"), False),
        (OSError(errno.EIO, "Input/output error", "/photos/a.jpg"), False),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/photos/a.jpg"), False),
        (OSError("x.tar ends within this image"), False),
        (ValueError("AWS Error, says a bug"), False),
    ],
)
def test_an_outage_is_told_from_the_error_of_one_file(error: Exception, expected: bool) -> None:
    assert is_outage(error) is expected
