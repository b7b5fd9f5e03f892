"""Checkpoints: the newest whole one is found, whatever happened to the others."""

from pathlib import Path

import pytest
import torch

from pipelines.checkpoints import Checkpoint, Checkpoints
from pipelines.storage import Storage


def save(folder: Path, *steps: int, keep: int = 2) -> None:
    with Checkpoints(Storage.at(str(folder)), keep) as checkpoints:
        for step in steps:
            checkpoints.save(Checkpoint(step, {"w": torch.full((3,), float(step))}, {"history": [step]}))
        checkpoints.wait()


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    damaged: list[str] = []
    with Checkpoints(Storage.at(str(folder)), 2) as checkpoints:
        return checkpoints.newest(damaged.append), damaged


def test_the_newest_is_found_and_the_newest_few_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 5, 50, 500)
    checkpoint, damaged = newest(tmp_path)
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.tensors["w"].tolist(), checkpoint.progress) == (
        500,
        [500.0] * 3,
        {"history": [500]},
    )
    assert len(list(tmp_path.iterdir())) == 2
    assert damaged == []


def test_there_is_none_in_an_empty_folder(tmp_path: Path) -> None:
    assert newest(tmp_path / "nowhere") == (None, [])


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + b"x", lambda data: data[:0]])
def test_a_damaged_one_is_named_and_the_one_before_it_taken(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    save(tmp_path, 1, 2)
    last = sorted(tmp_path.iterdir())[-1]
    last.write_bytes(damage(last.read_bytes()))
    checkpoint, damaged = newest(tmp_path)
    assert checkpoint is not None
    assert checkpoint.step == 1
    assert damaged == [str(last)]
    assert not last.exists()  # it would be the newest for ever


def test_what_a_killed_writer_left_is_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "0000000002.0123456789abcdef.safetensors.partial-1").write_bytes(b"half")
    checkpoint, damaged = newest(tmp_path)
    assert checkpoint is not None
    assert (checkpoint.step, damaged) == (1, [])
    assert len(list(tmp_path.iterdir())) == 1


def test_training_may_go_on_while_it_is_written(tmp_path: Path) -> None:
    weights = torch.zeros(1000, 1000)
    with Checkpoints(Storage.at(str(tmp_path)), 2) as checkpoints:
        checkpoints.save(Checkpoint(1, {"w": weights}, {}))
        weights.fill_(7)
    checkpoint, _ = newest(tmp_path)
    assert checkpoint is not None
    assert checkpoint.tensors["w"].abs().max() == 0


def test_a_checkpoint_that_could_not_be_written_is_an_error_at_the_next(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file where the folder has to be")
    checkpoints = Checkpoints(Storage.at(str(tmp_path / "blocked")), 2)
    checkpoints.save(Checkpoint(1, {"w": torch.zeros(1)}, {}))
    with pytest.raises(OSError, match="blocked"):
        checkpoints.save(Checkpoint(2, {"w": torch.zeros(1)}, {}))
