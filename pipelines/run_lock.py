"""One job at a time on a run directory."""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.errors import UserError
from pipelines.storage import Storage

LOCK = "run.lock"
# On a store without locks a job renews its claim; one that was killed is believed dead after a while.
RENEW_SECONDS = 10.0
STALE_SECONDS = 45.0


@contextmanager
def only_job_on(run: Storage) -> Iterator[None]:
    """Hold ``run`` during the block; a killed holder loses it at once, on an object store within a minute.

    Raises:
        UserError: another job holds it.
    """
    with _local_lock(Path(run.root)) if run.is_local else _lease(run):
        yield


def _about_this_job() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _refused(run: object, holder: dict[str, Any]) -> UserError:
    who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}, since {holder.get('since', '?')}"
    return UserError(f"{run} is in use by another job ({who}); wait for its end, or choose another --run-dir")


@contextmanager
def _local_lock(folder: Path) -> Iterator[None]:
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _refused(folder, _holder(file)) from error
        file.truncate(0)
        file.write(json.dumps(_about_this_job()).encode())
        file.flush()
        yield


def _holder(file: BinaryIO) -> dict[str, Any]:
    file.seek(0)
    try:
        holder: dict[str, Any] = json.loads(file.read())
    except ValueError:  # it is just being written
        return {}
    return holder


@contextmanager
def _lease(run: Storage) -> Iterator[None]:
    mine = {**_about_this_job(), "id": uuid.uuid4().hex}
    if run.exists(LOCK) and time.time() - (holder := run.read_json(LOCK))["renewed"] < STALE_SECONDS:
        raise _refused(run, holder)
    ended = threading.Event()

    def renew() -> None:
        while True:
            run.write_json(LOCK, {**mine, "renewed": time.time()})
            if ended.wait(RENEW_SECONDS):
                return

    run.write_json(LOCK, {**mine, "renewed": time.time()})
    thread = threading.Thread(target=renew, name="run_lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        run.delete(LOCK)
