"""Tests of checkpoints: the newest complete one is found, even if others are damaged or unreadable."""

import shutil
from pathlib import Path

import pytest
import torch

from pipelines.errors import UserError
from pipelines.run.storage import Storage
from pipelines.training.checkpoints import Checkpoint, Checkpoints, newest_step
from tests.pipelines.torn_storage import TornOnce


def save(folder: Path, *steps: int, keep: int = 2) -> None:
    with Checkpoints(Storage.at(str(folder)), keep) as checkpoints:
        for step in steps:
            checkpoints.save(Checkpoint(step, {"w": torch.full((3,), float(step))}, {"history": [step]}))
        checkpoints.wait()


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    return newest_in(Storage.at(str(folder)))


def newest_in(storage: Storage) -> tuple[Checkpoint | None, list[str]]:
    passed_over: list[str] = []
    with Checkpoints(storage, 2) as checkpoints:
        return checkpoints.newest(passed_over.append), passed_over


def test_the_newest_is_found_and_the_newest_few_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 5, 50, 500)
    checkpoint, passed_over = newest(tmp_path)
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.tensors["w"].tolist(), checkpoint.progress) == (
        500,
        [500.0] * 3,
        {"history": [500]},
    )
    assert len(list(tmp_path.iterdir())) == 2
    assert passed_over == []


def test_there_is_none_in_an_empty_folder(tmp_path: Path) -> None:
    assert newest(tmp_path / "nowhere") == (None, [])


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + b"x", lambda data: data[:0]])
def test_a_damaged_one_is_named_and_the_one_before_it_taken(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    save(tmp_path, 1, 2)
    last = sorted(tmp_path.iterdir())[-1]
    last.write_bytes(damage(last.read_bytes()))
    checkpoint, passed_over = newest(tmp_path)
    assert checkpoint is not None
    assert checkpoint.step == 1
    assert passed_over == [f"{last} is damaged, now named {last.name}.damaged"]
    content = Path(f"{last}.damaged").read_bytes()
    save(tmp_path, 3, 4)  # it is no longer the newest, does not count among those kept, and is not deleted
    assert [path.name[:10] for path in sorted(tmp_path.iterdir())] == ["0000000002", "0000000003", "0000000004"]
    assert Path(f"{last}.damaged").read_bytes() == content


def test_a_checkpoint_that_is_damaged_twice_is_set_aside_twice(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    last = sorted(tmp_path.iterdir())[-1]
    for content in (b"first", b"second"):
        last.write_bytes(content)
        newest(tmp_path)
    aside = [Path(f"{last}{suffix}").read_bytes() for suffix in (".damaged", ".damaged-2")]
    assert aside == [b"first", b"second"]


def test_a_bad_read_is_tried_again_and_changes_nothing(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    checkpoint, passed_over = newest_in(TornOnce(str(tmp_path)))
    assert checkpoint is not None
    assert (checkpoint.step, passed_over) == (2, [])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_where_all_are_damaged_training_stops_and_says_what_to_do(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    complete = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for path in complete:
        path.write_bytes(b"torn")
    for _ in range(2):  # a restart does not begin anew either
        with pytest.raises(UserError, match=rf"^no checkpoint in {tmp_path} is complete.*run the same command again"):
            newest(tmp_path)
    for path, data in complete.items():  # the storage has recovered
        path.write_bytes(data)
    checkpoint, _ = newest(tmp_path)
    assert checkpoint is not None
    assert checkpoint.step == 2
    for path in complete:  # the user has chosen to begin anew
        path.unlink()
    assert newest(tmp_path) == (None, [])


def bad_block(folder: Path, step: int) -> Path:
    """Create a checkpoint file that exists, but whose every read fails with a disk error (EIO)."""
    path = folder / f"{step:010d}.0123456789abcdef.safetensors"
    path.symlink_to("/proc/self/mem")
    return path


@pytest.mark.linux
def test_one_that_cannot_be_read_is_named_kept_and_the_one_before_it_taken(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    unreadable = bad_block(tmp_path, 9)
    checkpoint, passed_over = newest(tmp_path)
    assert checkpoint is not None
    assert checkpoint.step == 2
    assert len(passed_over) == 1
    assert passed_over[0].startswith(f"{unreadable} cannot be read (")
    assert unreadable.is_symlink()  # it may become readable again
    save(tmp_path, 3, 4, 5)  # and it does not count among those kept
    assert [path.name[:10] for path in sorted(tmp_path.iterdir())] == ["0000000004", "0000000005", "0000000009"]


@pytest.mark.linux
def test_where_none_can_be_read_nothing_is_begun_anew(tmp_path: Path) -> None:
    bad_block(tmp_path, 9)
    with pytest.raises(OSError, match="Input/output error"):
        newest(tmp_path)


def test_what_a_killed_writer_left_is_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "0000000002.0123456789abcdef.safetensors.partial-1").write_bytes(b"half")
    checkpoint, passed_over = newest(tmp_path)
    assert checkpoint is not None
    assert (checkpoint.step, passed_over) == (1, [])
    assert len(list(tmp_path.iterdir())) == 1


def test_other_files_beside_the_checkpoints_are_nobodys_business(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    last = sorted(tmp_path.iterdir())[-1]
    others = [tmp_path / name for name in ("best.safetensors", f"._{last.name}", f"Copy of {last.name}")]
    for other in others:  # a user's copy, and what tar adds on a Mac
        other.write_bytes(last.read_bytes())
    assert newest_step(Storage.at(str(tmp_path))) == 2
    checkpoint, passed_over = newest(tmp_path)
    assert checkpoint is not None
    assert (checkpoint.step, passed_over) == (2, [])
    save(tmp_path, 3, 4)
    assert all(other.exists() for other in others)
    assert len(list(tmp_path.iterdir())) == 2 + len(others)


def test_training_may_go_on_while_it_is_written(tmp_path: Path) -> None:
    weights = torch.zeros(1000, 1000)
    with Checkpoints(Storage.at(str(tmp_path)), 2) as checkpoints:
        checkpoints.save(Checkpoint(1, {"w": weights}, {}))
        weights.fill_(7)
    checkpoint, _ = newest(tmp_path)
    assert checkpoint is not None
    assert checkpoint.tensors["w"].abs().max() == 0


def test_a_folder_that_vanishes_is_not_made_anew(tmp_path: Path) -> None:
    with Checkpoints(Storage.at(str(tmp_path / "run/checkpoints")), 2) as checkpoints:
        shutil.rmtree(tmp_path / "run")
        checkpoints.save(Checkpoint(1, {"w": torch.zeros(1)}, {}))
        with pytest.raises(FileNotFoundError, match="run/checkpoints has vanished"):
            checkpoints.wait()
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_that_could_not_be_written_is_an_error_at_the_next(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file where the folder has to be")
    checkpoints = Checkpoints(Storage.at(str(tmp_path / "blocked")), 2)
    checkpoints.save(Checkpoint(1, {"w": torch.zeros(1)}, {}))
    with pytest.raises(OSError, match="blocked"):
        checkpoints.save(Checkpoint(2, {"w": torch.zeros(1)}, {}))
