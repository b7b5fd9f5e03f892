"""Checkpoints of one replica: complete files on any filesystem, of which the newest few are kept.

A file's name contains its step and the start of its SHA-256, so that damage is noticed. Damaged files are set aside
under another name, never deleted: the storage may have returned wrong bytes.
"""

import hashlib
import json
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import safetensors.torch
from torch import Tensor

from googlenet.images.rereading import read_again
from googlenet.training.health import MonitorState
from pipelines.errors import DamagedFileError, UserError
from pipelines.run.damaged_files import set_aside
from pipelines.run.json_lines import Line
from pipelines.run.storage import Storage

CHECKPOINTS_KEPT = 2
DIGEST_CHARACTERS = 16
SUFFIX = ".safetensors"
# All other files are somebody else's: a copy of a checkpoint, or what tar adds to it on a Mac.
NAME = re.compile(rf"\d{{10}}\.[0-9a-f]{{{DIGEST_CHARACTERS}}}{re.escape(SUFFIX)}")
PROGRESS = "progress"


class EpochState(TypedDict):
    """What a resumed epoch needs to end with the same figures: sums over its steps, and what was logged.

    Attributes:
        images: number of images in the steps taken.
        seconds: time that they took.
        waiting_seconds: share of it in which the training waited for batches.
        learning_rate: that of the last step.
        step: number of steps since the beginning of the training.
        losses: sum of the loss over the images, by classifier.
        lines: lines of the step log.
        interruptions: reasons of the notices that interrupted the epoch.
    """

    images: int
    seconds: float
    waiting_seconds: float
    learning_rate: float
    step: int
    losses: dict[str, float]
    lines: list[Line]
    interruptions: list[str]


class Progress(TypedDict):
    """What a checkpoint holds beside tensors, as JSON.

    Attributes:
        history: metrics of the epochs that were validated.
        monitor: state of the :class:`googlenet.training.health.HeadMonitor`.
        epoch: state of the next epoch, or of the one that was interrupted.
    """

    history: list[Line]
    monitor: MonitorState
    epoch: EpochState


@dataclass(frozen=True)
class Checkpoint:
    """State after ``step`` steps: named tensors, and the rest."""

    step: int
    tensors: dict[str, Tensor]
    progress: Progress


class Checkpoints:
    """The checkpoints in ``folder``. A thread writes them; use as a context manager to wait for it.

    ``writes`` is False for data-parallel workers that only read: they change nothing in the folder.
    """

    def __init__(self, folder: Storage, keep: int, *, writes: bool = True) -> None:
        self._folder, self._keep, self._writes = folder, keep, writes
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def __enter__(self) -> "Checkpoints":
        if self._writes:
            if self._folder.is_local:
                Path(self._folder.path()).mkdir(parents=True, exist_ok=True)
            self._folder.remove_partial_files("")
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.shutdown()

    def at(self, step: int) -> Checkpoint:
        """Return the checkpoint after ``step`` steps, which another process has found complete.

        Raises:
            OSError: this process does not find it complete.
        """
        for name in self._names()[::-1]:
            checkpoint = self._read(name) if _step_of(name) == step else None
            if checkpoint is not None:
                return checkpoint
        raise OSError(f"this worker cannot find the checkpoint of step {step} in {self._folder} that another one found")

    def newest(self, on_passed_over: Callable[[str], None]) -> Checkpoint | None:
        """Return the newest complete checkpoint, or None if there are no checkpoints.

        ``on_passed_over`` gets a message for each newer one: damaged ones are renamed, unreadable ones stay.

        Raises:
            OSError: some cannot be read, and no other is complete; training must not start over then.
            UserError: all are damaged; they keep their names, so that a later attempt reads them again.
        """
        passed_over: dict[str, OSError | None] = {}
        for name in reversed(self._names()):
            try:
                checkpoint = self._read(name)
            except OSError as error:  # a bad block, or a store that is down: it may become readable
                passed_over[name] = error
                continue
            if checkpoint is not None:
                for other, reason in passed_over.items():
                    on_passed_over(self._pass_over(other, reason))
                return checkpoint
            passed_over[name] = None
        for unreadable in filter(None, passed_over.values()):
            raise unreadable
        if passed_over:
            raise UserError(
                f"no checkpoint in {self._folder} is complete ({', '.join(passed_over)}): check the storage and run "
                "the same command again; to train this replica from the beginning, delete them"
            )
        return None

    def _pass_over(self, name: str, unreadable: OSError | None) -> str:
        """Rename a file that is damaged, not ``unreadable``; return a message."""
        if unreadable:
            return f"{self._folder.below(name)} cannot be read ({unreadable})"
        return f"{self._folder.below(name)} is damaged, now named {set_aside(self._folder, name)}"

    def _read(self, name: str) -> Checkpoint | None:
        """Return the checkpoint in the file ``name``; None if every read of it is damaged."""
        try:
            return read_again(lambda: _parsed(name, self._folder.read(name)), DamagedFileError)
        except DamagedFileError:
            return None

    def save(self, checkpoint: Checkpoint) -> None:
        """Start to write ``checkpoint``; its tensors are copied first, so that training can continue.

        Raises:
            OSError: the previous one could not be written.
        """
        if not self._writes:
            return
        self.wait()
        copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in checkpoint.tensors.items()}
        self._pending = self._writer.submit(self._write, Checkpoint(checkpoint.step, copies, checkpoint.progress))

    def wait(self) -> None:
        """Wait until the pending checkpoint is written.

        Raises:
            OSError: it could not be written.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _write(self, checkpoint: Checkpoint) -> None:
        metadata = {PROGRESS: json.dumps(checkpoint.progress)}
        data = safetensors.torch.save(checkpoint.tensors, metadata)
        # This runs in the background, and must not recreate a run directory that has vanished meanwhile.
        if self._folder.is_local and not Path(self._folder.path()).is_dir():
            raise FileNotFoundError(f"the folder {self._folder} has vanished")
        written = f"{checkpoint.step:010d}.{_digest(data)}{SUFFIX}"
        self._folder.write(written, data)
        # A file of a later step could not be read, and does not count among those kept.
        for name in [name for name in self._names() if name <= written][: -self._keep]:
            self._folder.delete(name)

    def _names(self) -> list[str]:
        return _names_in(self._folder)


def newest_step(folder: Storage) -> int:
    """Return the step of the newest checkpoint in ``folder``, complete or not; 0 if there is none."""
    return max(map(_step_of, _names_in(folder)), default=0)


def _names_in(folder: Storage) -> list[str]:
    return [name for name in folder.files("") if NAME.fullmatch(name)]


def _step_of(name: str) -> int:
    return int(name.partition(".")[0])


def _parsed(name: str, data: bytes) -> Checkpoint:
    step, _, rest = name.partition(".")
    if rest != f"{_digest(data)}{SUFFIX}":
        raise DamagedFileError(f"{name} is damaged: its SHA-256 differs from the one in its name")
    length = int.from_bytes(data[:8], "little")
    progress = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][PROGRESS])
    return Checkpoint(int(step), safetensors.torch.load(data), progress)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:DIGEST_CHARACTERS]
