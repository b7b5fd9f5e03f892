"""Data and run directory on S3: a real server on loopback, also while unreachable, slow to recover, or refusing."""

import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
import torch

import pipelines.training.replica
from pipelines.data.image_folder import FolderImages
from pipelines.data.shards import ShardPlan, write_shard
from pipelines.data.sources import images_to_train_on
from pipelines.errors import UserError
from pipelines.run.dataset import read_manifest
from pipelines.run.lock import LOCK, only_job_on
from pipelines.run.object_store import store_failure
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.run.storage_failures import storage_failure
from pipelines.train_ensemble import Arguments, run_job
from pipelines.training.options import WorkerOptions
from pipelines.training.replica import train_replica
from pipelines.training.shard_cache import folder
from pipelines.training.task import ReplicaTask
from tests.commands import run_script
from tests.project import ROOT
from tests.servers import Door, with_tools

BUCKET = "runs"
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def bucket(object_store: str) -> Iterator[str]:
    import boto3

    client = boto3.resource("s3").Bucket(BUCKET)
    client.create()
    yield f"s3://{BUCKET}"
    client.objects.all().delete()
    client.delete()


@pytest.fixture
def door(bucket: str) -> Iterator[Door]:
    """The server behind a door; a storage through it is at ``bucket`` with the door's address."""
    opened = Door(int(os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2]))
    yield opened
    opened.shut()


def through(door: Door, uri: str) -> Storage:
    return Storage.at(f"{uri}?endpoint_override=127.0.0.1:{door.port}&scheme=http")


def upload(folder: Path, uri: str) -> None:
    storage = Storage.at(uri)
    for path in folder.rglob("*"):
        if path.is_file():
            storage.write(path.relative_to(folder).as_posix(), path.read_bytes())


def digests(run: Storage, replicas: int) -> list[bytes]:
    return [run.read(f"replicas/{k}/weights.safetensors") for k in range(replicas)]


@pytest.fixture
def cached(prepared_run: Path) -> Iterator[list[Path]]:
    """Paths of the training shards' copies in this user's cache, which has none before and after the test."""
    shards = read_manifest(Storage.at(str(prepared_run))).splits["train"].shards
    paths = [folder() / f"{shard.digest}.parquet" for shard in shards]
    for path in paths:
        path.unlink(missing_ok=True)
    yield paths
    for path in paths:
        path.unlink(missing_ok=True)


@pytest.mark.usefixtures("store_beside", "no_pictures")
def test_the_whole_job_on_a_store_gives_what_it_gives_on_a_disk(
    bucket: str, ray_cluster: str, tiny_recipe: Recipe, photo_folder: Path, finished_run: Path, tmp_path: Path,
    cached: list[Path],
) -> None:  # fmt: skip
    upload(photo_folder, f"{bucket}/photos")
    recipe = replace(tiny_recipe, data=f"{bucket}/photos", replicas=1, policies=(1,))
    tracking_uri = f"sqlite:///{tmp_path}/mlflow.db"
    # The cache has its room however full the disk is, and evicts nothing of the user's.
    workers = WorkerOptions(shard_cache_gb=1e6)
    options = {"tracking_uri": tracking_uri, "models": "none", "predictors": 1, "workers": workers}
    assert run_job(Arguments(recipe, f"{bucket}/a/run", **options)) == 0  # type: ignore[arg-type]
    run, local = Storage.at(f"{bucket}/a/run"), Storage.at(str(finished_run))
    assert digests(run, recipe.replicas) == digests(local, recipe.replicas)
    whole = local.read_json("report/report.json")["replicas"]
    for replica, on_disk in zip(run.read_json("report/report.json")["replicas"], whole, strict=False):
        assert replica["rows"] == on_disk["rows"][:1]  # one crop; the run on the disk has ten and 144 too
    assert {"report.json", "report.md", "index.html", "confusion.csv"} <= set(run.files("report"))
    assert not run.exists(LOCK)
    assert all(path.exists() for path in cached)


def test_a_replica_on_a_store_that_dies_goes_on_from_there(
    bucket: str, prepared_run: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here in this process; a killed job is in test_interruption.py, locks in test_lock.py."""
    monkeypatch.setattr("pipelines.training.replica.use_own_cpus", lambda: None)
    torch.set_num_threads(1)
    alone = replace(tiny_recipe, replicas=1)
    runs = [Storage.at(f"{bucket}/{name}") for name in ("whole", "killed")]
    for run in runs:
        upload(prepared_run, run.root)
    train_replica(ReplicaTask(runs[0], alone, 0))
    step, steps = pipelines.training.replica.train_step, iter(range(4))  # of six, in epochs of three

    def one_step(*arguments: Any) -> Any:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return step(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipelines.training.replica, "train_step", one_step)
        train_replica(ReplicaTask(runs[1], alone, 0))
    assert runs[1].exists("replicas/0/metrics.jsonl")
    train_replica(ReplicaTask(runs[1], alone, 0))
    assert runs[1].read("replicas/0/steps/00000.jsonl").count(b"\n") == 3
    assert digests(runs[1], 1) == digests(runs[0], 1)


def test_large_objects_and_long_listings(bucket: str) -> None:
    storage = Storage.at(f"{bucket}/large")
    data = os.urandom(25 << 20)  # parts of 10 MiB
    storage.write("object", data)
    assert storage.read("object") == data
    names = [f"{number:04d}" for number in range(1001)]  # a page of a listing has 1,000
    put_objects([f"many/{name}" for name in names])
    assert Storage.at(bucket).files("many") == names


def put_objects(keys: Sequence[str]) -> None:
    """Make objects of one byte through one connection; boto3's own calls take 15 ms each."""
    import boto3

    client, address = boto3.client("s3"), urlsplit(os.environ["AWS_ENDPOINT_URL"])
    with closing(HTTPConnection(address.netloc)) as connection:
        for key in keys:
            signed = urlsplit(client.generate_presigned_url("put_object", {"Bucket": BUCKET, "Key": key}))
            connection.request("PUT", f"{signed.path}?{signed.query}", b"x")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200


def test_a_store_that_refuses_and_recovers_delays_and_nothing_else(bucket: str, door: Door) -> None:
    storage = pickle.loads(pickle.dumps(through(door, f"{bucket}/patient")))  # noqa: S301
    storage.write("a", b"1")
    assert type(pickle.loads(pickle.dumps(storage.filesystem))) is type(storage.filesystem)  # noqa: S301
    door.shut()
    threading.Timer(8, door.open).start()  # longer than Arrow's own retries
    with ThreadPoolExecutor(2) as at_once:
        reading, writing = at_once.submit(storage.read, "a"), at_once.submit(storage.write, "b", b"2")
    assert reading.result() == b"1"
    writing.result()
    assert Storage.at(f"{bucket}/patient").read("b") == b"2"


def test_an_upload_that_breaks_off_leaves_the_old_object_and_nothing_of_the_new(bucket: str, door: Door) -> None:
    storage = through(door, f"{bucket}/broken").impatient()  # retries are tested above, and take minutes
    storage.write("old", b"whole")
    for name in ("old", "new"):
        door.shut_after_bytes = door.forwarded_bytes + (15 << 20)
        with pytest.raises(OSError, match="AWS Error NETWORK_CONNECTION") as error:
            storage.write(name, bytes(30 << 20))
        assert "check the address" in (store_failure(str(error.value)) or "")
        door.shut_after_bytes = None
        door.open()
    direct = Storage.at(f"{bucket}/broken")
    assert direct.files("") == ["old"]
    assert direct.read("old") == b"whole"


def test_a_store_that_is_away_makes_no_image_a_bad_one(bucket: str, door: Door, photo_folder: Path) -> None:
    upload(photo_folder, f"{bucket}/photos")
    files = images_to_train_on(f"{bucket}/photos", 10, 0).listing.splits["train"]
    reader = FolderImages(through(door, f"{bucket}/photos").impatient())
    run, plan = Storage.at(f"{bucket}/run"), ShardPlan("train/00000.parquet", files)
    assert write_shard(run, reader, plan).images == len(files)
    door.shut()
    with pytest.raises(OSError, match="AWS Error NETWORK_CONNECTION") as error:
        write_shard(run, reader, plan)
    # As Ray Data passes it on: text only.
    assert "check the address" in (storage_failure(RuntimeError(f"task failed\nOSError: {error.value}\nmore")) or "")


def prepare(port: int, photos: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "pipelines/prepare_dataset.py", "--data", str(photos), "--run-dir", "s3://runs/a"]
    address = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_EC2_METADATA_DISABLED": "true"}
    environment = with_tools({**address, **variables})
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)


def known_before_it_asks(object_store: str, requests: str) -> None:
    """Let the server take so many requests before it asks who sends them."""
    headers = {"Content-Type": "application/octet-stream"}
    request = Request(f"{object_store}/moto-api/reset-auth", requests.encode(), headers, method="POST")
    urlopen(request, timeout=30).close()


def test_credentials_that_the_store_does_not_know_are_told_in_one_line(photo_folder: Path, object_store: str) -> None:
    known_before_it_asks(object_store, "0")
    try:
        ended = run_script("pipelines/prepare_dataset.py", "--data", str(photo_folder), "--run-dir", "s3://runs/a")
    finally:
        known_before_it_asks(object_store, "inf")
    assert ended.code == 1
    assert "ACCESS_KEY" in ended.stderr or "ACCESS_DENIED" in ended.stderr
    assert "check the credentials" in ended.stderr
    assert "Traceback" not in ended.stderr


class RefusesTheUnsigned(BaseHTTPRequestHandler):
    """S3's answer to a request without a signature; the server of the other tests answers 500 to that."""

    def do_HEAD(self) -> None:
        self.send_response(200 if "Authorization" in self.headers else 403)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.processes
def test_missing_credentials_are_told_in_one_line(photo_folder: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), RefusesTheUnsigned)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    nothing = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "")
    try:
        ended = prepare(server.server_port, photo_folder, {**nothing, "HOME": "/nonexistent"})
    finally:
        server.shutdown()
        server.server_close()
    assert ended.returncode == 1
    assert "ACCESS_DENIED" in ended.stderr
    assert "check the credentials" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_bucket_that_is_not_there_is_named(object_store: str) -> None:
    with pytest.raises(OSError, match="NO_SUCH_BUCKET") as error:
        Storage.at("s3://absent/run").write("a", b"1")
    assert "create the bucket, or use another" in (store_failure(str(error.value)) or "")


def test_of_two_jobs_that_begin_at_once_on_a_store_one_is_refused(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.run.lock.SETTLE_SECONDS", 1.0)
    run, outcomes = Storage.at(f"{bucket}/both"), []

    def job() -> None:
        try:
            with only_job_on(run):
                outcomes.append("held")
                time.sleep(0.5)
        except UserError:
            outcomes.append("refused")

    jobs = [threading.Thread(target=job) for _ in range(2)]
    for thread in jobs:
        thread.start()
    for thread in jobs:
        thread.join()
    assert sorted(outcomes) == ["held", "refused"]
