"""Parquet tables of a run: damage is noticed, never read as other numbers, and never seen where a storage fails."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import UserError
from pipelines.evaluation.sharded_prediction import PredictionTask, missing_shards
from pipelines.run.concurrency import concurrently
from pipelines.run.dataset import image_ids, read_manifest
from pipelines.run.directory import PREDICTIONS, TARGETS, VIEW_PROBABILITIES
from pipelines.run.predictions import (
    IMAGES_PER_SHARD,
    file_name,
    read_cost,
    read_costs,
    read_ensemble,
    read_predictions,
)
from pipelines.run.storage import Storage
from pipelines.run.teacher import read_targets, write_targets
from pipelines.run.view_probabilities import ViewProbabilities, read_views, write_views
from tests.pipelines.report.made_runs import ENSEMBLE, IDS, LABELS, made_run, predict
from tests.slow_store import SlowStore, slow_store

FLIPS = 100
SHARD = "000000.parquet"


@pytest.fixture
def run(tmp_path: Path) -> Storage:
    """A run with predictions of its six images, probabilities of their views, and targets."""
    run, numbers = made_run(tmp_path), np.random.default_rng(0)
    predict(run, list(range(6)))
    by_view = numbers.random((6, 2, 144, 7)).astype(np.float16)
    write_views(run, SHARD, ENSEMBLE, ViewProbabilities(IDS, LABELS, by_view))
    write_targets(run, IDS, numbers.random((6, 7), np.float32), {"dataset_digest": "digest"})
    return run


def with_flipped_bytes(content: bytes, part: str) -> Iterator[bytes]:
    """Yield a file with four other bytes in a row, in its pages or in the footer behind them, at random places."""
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    places = (4, footer - 4) if part == "pages" else (footer, len(content) - 4)
    for seed in range(FLIPS):
        numbers = np.random.default_rng(seed)
        place = int(numbers.integers(*places))
        flipped = np.frombuffer(content, np.uint8).copy()
        flipped[place : place + 4] ^= numbers.integers(1, 256, 4).astype(np.uint8)
        yield flipped.tobytes()


def read_rows(run: Storage) -> list[np.ndarray] | None:
    """What predictions hold; None if their shard is predicted again."""
    predictions = run.below(PREDICTIONS)
    if read_ensemble(predictions, SHARD) != ENSEMBLE:
        return None
    read_cost(predictions, SHARD)
    [rows] = read_predictions(predictions, [SHARD], ENSEMBLE)
    return [np.array(rows.image_ids), *(values for name, values in vars(rows).items() if name != "image_ids")]


def read_kept_views(run: Storage) -> list[np.ndarray] | None:
    """What is kept about views; None if it is of another ensemble."""
    views = read_views(run, ENSEMBLE)
    return [np.array(views.image_ids), views.labels, views.probabilities] if views else None


FILES: dict[str, Callable[[Storage], list[np.ndarray] | None]] = {
    f"{PREDICTIONS}/{SHARD}": read_rows,
    f"{VIEW_PROBABILITIES}/{SHARD}": read_kept_views,
    TARGETS: lambda run: [read_targets(run, read_manifest(run))],
}


@pytest.mark.parametrize("part", ["pages", "footer"])
@pytest.mark.parametrize("file", FILES)
def test_a_table_with_flipped_bytes_is_named_or_made_again_or_read_as_it_was(
    run: Storage, file: str, part: str
) -> None:
    expected, noticed = FILES[file](run), 0
    assert expected is not None
    for content in with_flipped_bytes(run.read(file), part):
        run.write(file, content)
        try:
            found = FILES[file](run)
        except UserError as error:
            found, message = None, str(error)
            assert message.startswith(f"{run.below(file)} is ")
            assert "delete it" in message
            assert "\n" not in message
        noticed += found is None
        assert found is None or all(map(np.array_equal, found, expected))
    assert noticed > FLIPS / 2


def test_ids_of_a_damaged_shard_are_refused_by_its_name(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    table = pq.read_table(tmp_path / "dataset/val/00000.parquet")
    with run.writing("dataset/val/00000.parquet") as stream:
        pq.write_table(table, stream, compression="none", use_dictionary=False, write_page_checksum=True)
    assert image_ids(run, read_manifest(run).splits["val"]) == IDS
    run.write("dataset/val/00000.parquet", run.read("dataset/val/00000.parquet").replace(b"val/3.jpg", b"val/8.jpg", 1))
    with pytest.raises(UserError, match=r"dataset/val/00000\.parquet is damaged; restore the prepared file"):
        image_ids(run, read_manifest(run).splits["val"])


def test_predictions_of_earlier_versions_have_no_checksums_and_are_read(run: Storage) -> None:
    expected, predictions = read_rows(run), run.below(PREDICTIONS)
    table = pq.read_table(predictions.path(SHARD))
    with predictions.writing(SHARD) as stream:
        pq.write_table(table, stream, compression="zstd")
    found = read_rows(run)
    assert expected is not None
    assert found is not None
    assert all(map(np.array_equal, found, expected))


@pytest.fixture
def store() -> Iterator[type[SlowStore]]:
    with slow_store() as opened:
        yield opened


def task_of(run: Storage) -> PredictionTask:
    return PredictionTask(run, run, (), ENSEMBLE, read_manifest(run).splits["val"])


def test_predictions_that_cannot_be_read_for_the_moment_are_not_predicted_again(
    run: Storage, store: type[SlowStore]
) -> None:
    """Libraries of object stores raise errors without numbers, like those about content."""
    away = Storage.at("slow://runs/one")
    for name in ("dataset/manifest.json", f"{PREDICTIONS}/{SHARD}"):
        away.write(name, run.read(name))
    task = task_of(away)
    store.failure = "the server hung up"
    with pytest.raises(OSError, match="the server hung up"):
        missing_shards(task, 6)
    store.failure = ""
    assert missing_shards(task, 6) == []


def test_files_of_others_among_the_predictions_are_kept(run: Storage) -> None:
    run.write(f"{PREDICTIONS}/note.txt", b"mine")
    run.write(f"{PREDICTIONS}/000007.parquet", run.read(f"{PREDICTIONS}/{SHARD}"))  # of another number of images
    assert missing_shards(task_of(run), 6) == []
    assert run.read(f"{PREDICTIONS}/note.txt.damaged") == b"mine"
    assert run.files(PREDICTIONS) == [SHARD]


TORN: dict[str, Callable[[Storage], object]] = {
    f"{PREDICTIONS}/{SHARD}": lambda run: [
        rows.probabilities for rows in read_predictions(run.below(PREDICTIONS), [SHARD], ENSEMBLE)
    ],
    f"{VIEW_PROBABILITIES}/{SHARD}": read_kept_views,
    TARGETS: FILES[TARGETS],
    "dataset/val/00000.parquet": lambda run: [np.array(image_ids(run, read_manifest(run).splits["val"]))],
}


@pytest.mark.parametrize("file", TORN)
def test_a_file_of_which_a_part_was_read_is_read_again(run: Storage, store: type[SlowStore], file: str) -> None:
    away = Storage.at("slow://runs/one")
    for name in ("dataset/manifest.json", file):
        away.write(name, run.read(name))
    store.torn = set()
    found, expected = TORN[file](away), TORN[file](run)
    assert store.torn
    assert all(map(np.array_equal, found, expected))  # type: ignore[call-overload]


def test_predictions_that_cannot_be_read_are_set_aside_and_told(
    run: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions, whole = run.below(PREDICTIONS), run.read(f"{PREDICTIONS}/{SHARD}")
    task = task_of(run)
    assert missing_shards(task, 6) == []
    assert capsys.readouterr().out == ""
    for part, aside in ((100, f"{SHARD}.damaged"), (50, f"{SHARD}.damaged-2")):
        predictions.write(SHARD, whole[:-part])
        assert missing_shards(task, 6) == [0]
        assert not predictions.exists(SHARD)
        assert predictions.read(aside) == whole[:-part]
        assert aside in " ".join(capsys.readouterr().out.split())
    assert predictions.files("") == []
    predictions.write(SHARD, whole)  # it is predicted again
    assert missing_shards(task, 6) == []
    assert len(read_costs(predictions)) == 1


def test_files_in_an_object_store_are_read_and_deleted_several_at_a_time(
    store: type[SlowStore], tmp_path: Path
) -> None:
    """A teacher's answers for ImageNet are 80,000 files: one after another they would take hours."""
    here, away = made_run(tmp_path), Storage.at("slow://runs/one")
    predict(here, list(range(6)))
    away.write("dataset/manifest.json", here.read("dataset/manifest.json"))
    names = [file_name(shard) for shard in range(40)]
    for name in names:
        away.write(f"{PREDICTIONS}/{name}", here.read(f"{PREDICTIONS}/{SHARD}"))
    task, most = task_of(away), {}
    work: dict[str, Callable[[], object]] = {
        "present": lambda: missing_shards(task, 40 * IMAGES_PER_SHARD),
        "rows": lambda: list(read_predictions(task.predictions, names, ENSEMBLE)),
        "costs": lambda: read_costs(task.predictions),
        "deleted": lambda: task.predictions.delete_all(names),
    }
    for name, do in work.items():
        store.most_at_once = 0
        do()
        most[name] = store.most_at_once
    assert all(number > 4 for number in most.values()), most
    assert task.predictions.files("") == []


def test_work_in_threads_keeps_its_order_and_is_a_few_items_ahead() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = concurrently(lambda number: -number, numbers())
    assert [next(results) for _ in range(5)] == [0, -1, -2, -3, -4]
    assert len(taken) < 30  # the rest waits, and so do its results
    assert list(results) == [-number for number in range(5, 1000)]


def test_an_error_in_a_thread_ends_the_work() -> None:
    def work(number: int) -> int:
        if number == 3:
            raise pa.ArrowInvalid("three")
        return number

    with pytest.raises(pa.ArrowInvalid, match="three"):
        list(concurrently(work, range(100)))
