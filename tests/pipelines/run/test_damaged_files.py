"""Damaged files of a run directory: one line with the file's name and what to do, from whatever reads them."""

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from googlenet.evaluation.kept_calibration import KeptCalibration
from googlenet.network.model import GoogLeNet
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.network.weight_files import save_weights
from pipelines.errors import UserError
from pipelines.job.log import read_jobs
from pipelines.report.comparison import read_finished
from pipelines.report.write import write_report
from pipelines.run.budget import read_budget
from pipelines.run.calibration import read_calibration
from pipelines.run.claims import claim
from pipelines.run.dataset import read_manifest
from pipelines.run.directory import TARGETS, read_recipe, run_id
from pipelines.run.json_lines import read_metrics, read_steps
from pipelines.run.predictions import read_predictions
from pipelines.run.recipe import Recipe
from pipelines.run.soups import read_soups
from pipelines.run.storage import Storage
from pipelines.run.tables import read_schema, read_table
from pipelines.run.teacher import METADATA_KEY, read_targets
from pipelines.run.view_probabilities import read_views
from pipelines.run.weights import read_replica, weights_digests
from pipelines.tracking.publish import PublishSettings
from pipelines.tracking.replay import replay
from tests.pipelines.report.made_runs import ENSEMBLE
from tests.pipelines.torn_storage import TornOnce
from tests.pipelines.tracking.followed_runs import JOB


@pytest.fixture
def run(reported_run: Path, tmp_path: Path) -> Storage:
    """A finished run."""
    run = Storage.at(str(shutil.copytree(reported_run, tmp_path / "run")))
    run.write_json("jobs/1.json", {**JOB, "outcome": "ended"})
    run.write_json("calibration.json", {})
    return run


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> str:
    """A new MLflow store."""
    return f"sqlite:///{shutil.copy(empty_store, tmp_path)}"


READERS = {
    "run.json": [read_recipe, run_id, lambda run: claim(run, "recipe", Recipe().to_dict())],
    "dataset/manifest.json": [read_manifest],
    "jobs/1.json": [read_jobs],
    "calibration.json": [lambda run: read_calibration(run, ENSEMBLE.weights_digests)],
    "report/report.json": [lambda run: read_finished(run, "mine")],
    "report/outcomes.parquet": [lambda run: read_finished(run, "mine")],
    "view_probabilities/000000.parquet": [lambda run: read_views(run, ENSEMBLE)],
}


@pytest.mark.parametrize("content", [b"", b'{"half": [1, ', b"\0\0\0\0", b"[1, 2]", b"null", b"[" * 100_000])
@pytest.mark.parametrize("file", READERS)
def test_a_damaged_file_is_named_with_what_to_do(run: Storage, file: str, content: bytes) -> None:
    run.write(file, content)
    for read in READERS[file]:
        with pytest.raises(UserError) as refused:
            read(run)
        assert str(refused.value).startswith(f"{run.below(file)} is damaged")
        assert "restore it, or " in str(refused.value)
        assert "\n" not in str(refused.value)


INTACT_READERS: dict[str, Callable[[Storage], object]] = {
    "run.json": read_recipe,
    "dataset/manifest.json": read_manifest,
    "calibration.json": lambda run: read_calibration(run, ()),
    "report/report.json": lambda run: read_finished(run, "mine"),
    "report/outcomes.parquet": lambda run: read_finished(run, "mine"),
}


@pytest.mark.parametrize("file", INTACT_READERS)
def test_a_file_of_which_a_part_was_read_is_read_again(run: Storage, file: str) -> None:
    run.write_json("calibration.json", KeptCalibration((), "", 0, {}, {}).to_dict())
    torn = TornOnce(run.root)
    INTACT_READERS[file](torn)
    assert file in torn.torn


def test_weights_of_which_a_part_was_read_are_read_again(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_weights(file, GoogLeNet(3, width=0.125), SCRATCH_PREPROCESSING)
    torn = TornOnce(str(tmp_path))
    assert read_replica(torn, file.name)[0] == file.read_bytes()
    assert file.name in torn.torn


def test_metrics_of_which_a_part_was_read_are_read_again(tmp_path: Path) -> None:
    lines = [{"epoch": epoch, "val_top1_error": 50.0} for epoch in range(1, 4)]
    torn = TornOnce(str(tmp_path))
    torn.write_json_lines("replicas/0/metrics.jsonl", lines)
    assert read_metrics(torn, 0) == lines
    assert "replicas/0/metrics.jsonl" in torn.torn


def test_the_digest_of_weights_is_never_that_of_a_part_of_them(tmp_path: Path) -> None:
    file = tmp_path / "replicas/0/weights.safetensors"
    file.parent.mkdir(parents=True)
    save_weights(file, GoogLeNet(3, width=0.125), SCRATCH_PREPROCESSING)
    torn, content = TornOnce(str(tmp_path)), file.read_bytes()
    assert weights_digests(torn, [0]) == (hashlib.sha256(content).hexdigest(),)
    assert "replicas/0/weights.safetensors" in torn.torn
    file.write_bytes(content[:-1])
    with pytest.raises(UserError, match=r"weights\.safetensors is damaged .*train_ensemble.py rewrites it"):
        weights_digests(torn, [0])


def test_a_damaged_soup_is_averaged_again_by_the_command_that_made_it(tmp_path: Path) -> None:
    soups = Storage.at(str(tmp_path / "soup"))
    soups.write("replicas/0/weights.safetensors", b"half")
    with pytest.raises(UserError, match="delete it, and the same command with --soup averages it again"):
        read_replica(soups, "replicas/0/weights.safetensors")


def with_a_damaged_page(table: pa.Table) -> bytes:
    """A Parquet file whose schema can be read, and whose content cannot."""
    stream = io.BytesIO()
    pq.write_table(table, stream, compression="zstd")
    content = bytearray(stream.getvalue())
    content[4:40] = bytes(36)
    with pytest.raises(OSError, match="thrift"):  # as Arrow says of it
        pq.read_table(pa.BufferReader(bytes(content)))
    return bytes(content)


TABLE_READERS: dict[str, Callable[[Storage], object]] = {
    "report/outcomes.parquet": lambda run: read_finished(run, "mine"),
    "view_probabilities/000000.parquet": lambda run: read_views(run, ENSEMBLE),
    "predictions/000000.parquet": lambda run: list(
        read_predictions(run.below("predictions"), ["000000.parquet"], ENSEMBLE)
    ),
    TARGETS: lambda run: read_targets(run, read_manifest(run)),
}


@pytest.mark.parametrize("file", TABLE_READERS)
def test_a_table_with_a_damaged_page_is_named_too(run: Storage, file: str) -> None:
    kept = {METADATA_KEY: json.dumps({"dataset_digest": "digest"})}
    probabilities = pa.FixedSizeListArray.from_arrays(pa.array([0.125] * 42, pa.float32()), 7)
    table = pa.table({"probabilities": probabilities}).replace_schema_metadata(kept)
    run.write(file, with_a_damaged_page(table))
    with pytest.raises(UserError, match=f"^{run.below(file)} is damaged"):
        TABLE_READERS[file](run)


@pytest.mark.parametrize("name", ["folder", "gone"])
def test_a_table_that_cannot_be_read_is_not_called_damaged(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    for read in (read_table, read_schema):
        with pytest.raises((OSError, pa.ArrowException)):
            read(Storage.at(str(tmp_path)), name)


@pytest.mark.parametrize(
    ("file", "lacking", "read"),
    [
        ("dataset/manifest.json", "splits", read_manifest),
        ("dataset/manifest.json", "classes", read_manifest),
        ("report/report.json", "ensemble", lambda run: read_finished(run, "mine")),
        ("run.json", "id", run_id),
        ("calibration.json", "weights_digests", lambda run: read_calibration(run, ())),
        ("budget.json", "weights_digests", lambda run: read_budget(run, ())),
        ("soup/soups.json", "weights_digests", lambda run: read_soups(run, ENSEMBLE)),
    ],
)
def test_a_file_that_was_edited_is_named_with_the_key_that_it_lacks(
    run: Storage, file: str, lacking: str, read: Callable[[Storage], object]
) -> None:
    written = run.read_json(file) if run.exists(file) else {}
    run.write_json(file, {name: value for name, value in written.items() if name != lacking})
    with pytest.raises(UserError, match=rf"{file} is damaged \(.*'{lacking}'.*\); restore"):
        read(run)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_manifest_without_a_split_is_named(run: Storage, split: str) -> None:
    manifest = run.read_json("dataset/manifest.json")
    del manifest["splits"][split]
    run.write_json("dataset/manifest.json", manifest)
    with pytest.raises(UserError, match=rf"manifest\.json is damaged \(it has no split '{split}'\); restore"):
        read_manifest(run)


@pytest.mark.parametrize("recipe", ["pancakes", 3, None])
def test_a_recipe_that_is_no_object_is_named(run: Storage, recipe: object) -> None:
    run.write_json("run.json", {**run.read_json("run.json"), "recipe": recipe})
    with pytest.raises(UserError, match=r"run\.json is damaged \(recipe is no object\)"):
        read_recipe(run)


def test_other_files_among_the_logs_of_jobs_are_not_read(run: Storage) -> None:
    before = read_jobs(run)
    run.write("jobs/1.json~", b"an editor's")
    run.write("jobs/readme.txt", b"mine")
    run.write_json("jobs/notes.json", {"todo": "look again"})
    assert read_jobs(run) == before


def test_a_report_stays_until_all_that_the_next_one_reads_is_intact(run: Storage) -> None:
    files = ("report/report.json", "calibration.json")
    before = [run.read(file) for file in files]
    run.write("jobs/1.json", b"[]")
    with pytest.raises(UserError, match=r"jobs/1\.json is damaged"):
        write_report(run, ENSEMBLE, with_pictures=False)
    assert [run.read(file) for file in files] == before


def test_run_json_is_the_one_that_nothing_makes_again(run: Storage) -> None:
    run.write("run.json", b"")
    with pytest.raises(UserError, match="start again in a new --run-dir"):
        read_recipe(run)


def test_a_replay_names_the_damaged_file_and_not_mlflow(run: Storage, store: str) -> None:
    run.write("report/report.json", b"")
    with pytest.raises(UserError, match=r"report\.json is damaged") as refused:
        replay(run, PublishSettings(store, "none"))
    assert "MLflow" not in str(refused.value)


def test_a_replay_without_the_models_that_were_asked_for_has_failed(run: Storage, store: str) -> None:
    run.write("replicas/0/weights.safetensors", b"half")
    run.write("replicas/1/weights.safetensors", b"half")
    with pytest.raises(UserError, match=r"replicas/0/weights\.safetensors: .*delete it") as refused:
        replay(run, PublishSettings(store, "all"))
    assert "warning" not in str(refused.value)


def test_what_macs_and_windows_leave_in_the_folders_of_a_run_is_not_read(run: Storage, store: str) -> None:
    before = read_jobs(run), read_steps(run, 0, 0), read_views(run, ENSEMBLE)
    for name in ("jobs/._1.json", "replicas/0/steps/._00000.jsonl", "view_probabilities/._000000.parquet"):
        run.write(name, b"\0\5\x16\7" + bytes(100))
    for name in ("system/.DS_Store", "system/localhost/Thumbs.db", "jobs/desktop.ini", "report/._index.html"):
        run.write(name, b"\0\0\0\1Bud1")
    assert (read_jobs(run), read_steps(run, 0, 0), read_views(run, ENSEMBLE)) == before
    replay(run, PublishSettings(store, "none"))
