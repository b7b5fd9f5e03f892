"""Checkpoints of one replica: whole files on any filesystem, the newest few kept, a damaged one passed over.

A file's name holds its step and the beginning of its own SHA-256, so that what is read is what was written.
"""

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from pipelines.run.storage import Storage

CHECKPOINTS_KEPT = 2
DIGEST_CHARACTERS = 16
SUFFIX = ".safetensors"
PROGRESS = "progress"


@dataclass(frozen=True)
class Checkpoint:
    """The state after ``step`` steps: named tensors, and what else has to be known, as JSON."""

    step: int
    tensors: dict[str, Tensor]
    progress: dict[str, Any]


class Checkpoints:
    """The checkpoints in ``folder``. Saving goes on in a thread of its own; use as a context manager to wait for it.

    ``writes`` is off for data-parallel workers that only read: they change nothing in the folder.
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
        """The checkpoint after ``step`` steps, which another process has found whole.

        Raises:
            OSError: this process does not see it so.
        """
        for name in self._names()[::-1]:
            checkpoint = _read(name, self._folder.read(name)) if _step_of(name) == step else None
            if checkpoint is not None:
                return checkpoint
        raise OSError(f"{self._folder} holds no whole checkpoint of step {step} for this worker, for others it does")

    def newest(self, on_passed_over: Callable[[str], None]) -> Checkpoint | None:
        """The newest whole checkpoint; ``on_passed_over`` is told of newer ones that are damaged or cannot be read.

        Raises:
            OSError: there are some, and none of them is whole and can be read; nothing is begun anew then.
        """
        unreadable: OSError | None = None
        for name in reversed(self._names()):
            try:
                data = self._folder.read(name)
            except OSError as error:  # a bad block, or a store that does not answer for the moment: it may come back
                unreadable = error
                on_passed_over(f"{self._folder.below(name)} cannot be read ({error})")
                continue
            checkpoint = _read(name, data)
            if checkpoint is not None:
                return checkpoint
            on_passed_over(f"{self._folder.below(name)} is damaged")
            self._folder.delete(name)
        if unreadable:
            raise unreadable
        return None

    def save(self, checkpoint: Checkpoint) -> None:
        """Begin to write; the tensors are copied first, so that training goes on meanwhile.

        Raises:
            OSError: the last one could not be written.
        """
        if not self._writes:
            return
        self.wait()
        copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in checkpoint.tensors.items()}
        self._pending = self._writer.submit(self._write, Checkpoint(checkpoint.step, copies, checkpoint.progress))

    def wait(self) -> None:
        """Wait until what was begun is written.

        Raises:
            OSError: it could not be.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _write(self, checkpoint: Checkpoint) -> None:
        metadata = {PROGRESS: json.dumps(checkpoint.progress)}
        data = safetensors.torch.save(checkpoint.tensors, metadata)
        # Written beside the work, it must not make a run directory anew that has vanished meanwhile.
        if self._folder.is_local and not Path(self._folder.path()).is_dir():
            raise FileNotFoundError(f"the folder {self._folder} has vanished")
        written = f"{checkpoint.step:010d}.{_digest(data)}{SUFFIX}"
        self._folder.write(written, data)
        # One of a later step is one that could not be read, and takes nobody's place.
        for name in [name for name in self._names() if name <= written][: -self._keep]:
            self._folder.delete(name)

    def _names(self) -> list[str]:
        return _names_in(self._folder)


def newest_step(folder: Storage) -> int:
    """The step of the newest checkpoint in ``folder``, whole or not; 0 where there is none."""
    return max(map(_step_of, _names_in(folder)), default=0)


def _names_in(folder: Storage) -> list[str]:
    return [name for name in folder.files("") if name.endswith(SUFFIX)]


def _step_of(name: str) -> int:
    return int(name.partition(".")[0])


def _read(name: str, data: bytes) -> Checkpoint | None:
    step, _, rest = name.partition(".")
    if rest != f"{_digest(data)}{SUFFIX}":
        return None
    length = int.from_bytes(data[:8], "little")
    progress = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][PROGRESS])
    return Checkpoint(int(step), safetensors.torch.load(data), progress)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:DIGEST_CHARACTERS]
