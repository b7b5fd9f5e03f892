"""Fixtures of the session: a small Ray cluster, small photographs, and the smallest realistic recipe.

The project is imported by the fixtures that use it: pytest-xdist's own process, which uses none, would import PyTorch
before it starts those that do the tests.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import jaxtyping
import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from tests.made_once import made_once
from tests.own_process import is_on_cluster
from tests.servers import s3_server

if TYPE_CHECKING:
    from pipelines.run.recipe import Recipe

CLUSTER_CPUS = 2
RUNNING_CLUSTER = pytest.StashKey[ExitStack]()
# The same examples each time, and no deadline on a busy machine.
settings.register_profile("suite", derandomize=True, deadline=None)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def no_pauses_between_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read what looks damaged again at once: the storage of tests does not recover with time."""
    from googlenet.images import rereading

    monkeypatch.setattr(rereading, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def unchecked_types() -> Iterator[None]:
    """Disable type checks, to test the messages for arguments of wrong types."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """The address of an S3 server; this process and the cluster get it from their environment."""
    with s3_server() as port:
        address = f"http://127.0.0.1:{port}"
        os.environ.update(
            AWS_ENDPOINT_URL=address,
            AWS_ACCESS_KEY_ID="somebody",
            AWS_SECRET_ACCESS_KEY="something",  # noqa: S106
            AWS_DEFAULT_REGION="us-east-1",
        )
        yield address


@pytest.fixture(scope="session")
def ray_cluster(object_store: str, pytestconfig: pytest.Config) -> Iterator[str]:
    """The address of a running cluster, used by in-process calls and by commands that get it as RAY_ADDRESS."""
    from pipelines.job.ray_session import connected

    with ExitStack() as running:
        running.enter_context(connected(num_cpus=CLUSTER_CPUS))
        pytestconfig.stash[RUNNING_CLUSTER] = running
        import ray

        assert "GPU" not in ray.cluster_resources()
        yield ray.get_runtime_context().gcs_address


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End the shared cluster after its last test: an idle one takes 14 % of a core, for half of the suite.

    Its tests come first and one after the other, so no later test of this process needs it again.
    """
    if nextitem is not None and not is_on_cluster(nextitem) and RUNNING_CLUSTER in item.config.stash:
        item.config.stash[RUNNING_CLUSTER].close()


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of flat colour with noise, learnable in seconds: 8 training and 14 validation images each."""
    with made_once(tmp_path_factory, "photos") as (folder, is_new):
        if is_new:
            write_photos(folder / "three")
    return folder / "three"


def write_photos(root: Path) -> None:
    generator = np.random.default_rng(0)
    for split, images in (("train", 8), ("val", 14)):
        for label, colour in enumerate([(200, 40, 40), (40, 200, 40), (40, 40, 200)]):
            folder = root / split / f"class_{label}"
            folder.mkdir(parents=True)
            for number in range(images):
                height, width = [(48, 64), (64, 48), (50, 50)][number % 3]
                pixels = np.clip(generator.normal(colour, 60, (height, width, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.jpg")


@pytest.fixture(scope="session")
def tiny_recipe(photo_folder: Path) -> "Recipe":
    from pipelines.run.named_recipes import demo

    return replace(
        demo(),
        name="tiny",
        data=str(photo_folder),
        images_per_shard=9,
        crop_px=35,
        width=0.125,
        replicas=3,
        epochs=2,
        batch_size=8,
        learning_rate=0.05,
        warmup_epochs=0,
        areas=((0.4, 1.0),),
    )


@pytest.fixture(scope="session")
def prepared_run(tiny_recipe: "Recipe", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with the prepared data set and nothing else, made without a cluster; to read and to copy."""
    from pipelines.run.storage import Storage
    from tests.prepared import prepare_here

    with made_once(tmp_path_factory, "prepared_runs") as (folder, is_new):
        if is_new:
            prepare_here(Storage.at(str(folder / "prepared")), tiny_recipe)
    return folder / "prepared"


@pytest.fixture
def predictions_here() -> Iterator[None]:
    """Predict in this process, for claims about the command around it: to start predictors takes much longer."""
    from tests.prepared import predicting_here

    with predicting_here():
        yield


@pytest.fixture(scope="session")
def trained_run(prepared_run: Path, tiny_recipe: "Recipe", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with three trained replicas and nothing after that, made without a cluster; to read and to copy."""
    from pipelines.run.storage import Storage
    from tests.prepared import train_here

    with made_once(tmp_path_factory, "trained_runs") as (folder, is_new):
        if is_new:
            shutil.copytree(prepared_run, folder / "run")
            train_here(Storage.at(str(folder / "run")), tiny_recipe)
    return folder / "run"


@pytest.fixture(scope="session")
def reported_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run made by hand, with its report, for tests to read and to copy; to draw a report takes a second."""
    from tests.pipelines.report.made_runs import report_on_made_run

    with made_once(tmp_path_factory, "reported_runs") as (folder, is_new):
        if is_new:
            report_on_made_run(folder / "reported")
    return folder / "reported"


@pytest.fixture(scope="session")
def two_reported_runs(tmp_path_factory: pytest.TempPathFactory, reported_run: Path) -> Path:
    """A folder with ``reported_run`` as ``first``, and ``second`` with another learning rate and other answers.

    The second has no pictures.
    """
    from tests.pipelines.report.made_runs import report_on_made_run

    with made_once(tmp_path_factory, "two_reported_runs") as (folder, is_new):
        if is_new:
            shutil.copytree(reported_run, folder / "first")
            others = [0, 1, 2, 3, 4, 5], [1, 1, 2, 3, 0, 0]
            report_on_made_run(folder / "second", *others, with_pictures=False, learning_rate=0.5)
    return folder


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without pictures: to draw those takes a second for each. The finished run has its own."""
    monkeypatch.setattr("pipelines.report.write._pictures", lambda *_: {})


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a new MLflow store. To copy it takes no time; to create one takes two seconds."""
    from pipelines.tracking.store import connect

    with made_once(tmp_path_factory, "empty_stores") as (folder, is_new):
        if is_new:
            connect(f"sqlite:///{folder}/mlflow.db")
    return folder / "mlflow.db"


@pytest.fixture
def store_beside(tmp_path: Path, empty_store: Path) -> None:
    """An empty MLflow store beside the runs in the test's folder; finished_run's job makes its own."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")


@pytest.fixture(scope="session")
def finished_run(
    request: pytest.FixtureRequest, tiny_recipe: "Recipe", tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The run directory of a finished job on the shared cluster, for tests to read and to copy."""
    from pipelines.train_ensemble import Arguments, run_job
    from pipelines.training.options import WorkerOptions

    with made_once(tmp_path_factory, "finished_runs") as (folder, is_new):
        if is_new:
            request.getfixturevalue("ray_cluster")
            # One worker trains all replicas in turn: two at once, each with four processes, take as long.
            workers = WorkerOptions(parallel_replicas=1)
            arguments = Arguments(tiny_recipe, str(folder / "finished"), predictors=2, workers=workers)
            assert run_job(arguments) == 0
    before = times_of_files(folder / "finished")
    yield folder / "finished"
    assert times_of_files(folder / "finished") == before, "a test has written to a run that others read"


def times_of_files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
