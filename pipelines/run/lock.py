"""Lock of a run directory, which admits one job at a time, or one reader that needs it to stay as it is."""

import errno
import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypedDict, cast

import psutil

from pipelines.errors import TryAgainError, UserError
from pipelines.run.directory import LOCK, WAY_OUT, check_folder
from pipelines.run.json_object import json_object
from pipelines.run.storage import Storage
from pipelines.run.storage_failures import STORE_FAILURES

# On an object store, which has no locks, a job renews its claim; a job that stops renewing it is assumed dead.
RENEW_SECONDS = 10.0
STALE_SECONDS = 45.0
# Time that two jobs started at once may need to see each other's claim.
SETTLE_SECONDS = 2.0
# Ray's copy of a project that came with a job; it is removed when it is not needed any more.
FOLDER_OF_COPIES = "working_dir_files"
# Set when another job has taken over the run: this one is then interrupted, and not to be run again.
taken_over = threading.Event()


class Holder(TypedDict, total=False):
    """What a job writes about itself into the lock; others may have written less, or something else.

    Attributes:
        host: name of its machine.
        pid: its process there.
        since: when it took the lock, by the clock and in the time zone of its machine.
        id: tells it from all other jobs, on an object store.
        renewals: how often it has renewed its claim there.
        unreadable: the bytes, where they are not JSON.
    """

    host: str
    pid: int
    since: str
    id: str
    renewals: int
    unreadable: str


class RunInUseError(TryAgainError):
    """Another job holds the run directory; the same command works once that job has ended."""


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def only_job_on(run: Storage, way_out: str = WAY_OUT, tell: Callable[[str], None] = _print) -> Iterator[None]:
    """Hold ``run`` during the block; a killed job releases it at once, on an object store within a minute.

    ``way_out`` is what to do instead of waiting until another job ends. ``tell`` prints a line on another job.

    Raises:
        RunInUseError: another job holds it.
        UserError: a file is in the place of its folder, or it is relative in a job that was submitted.
    """
    check_folder(run)
    if run.is_local and FOLDER_OF_COPIES in Path(run.root).parts:
        raise UserError(
            f"{run} lies in Ray's copy of the project, which Ray removes: give --run-dir as a URI, or as a path from / "
            "that all nodes share"
        )
    with _local_lock(Path(run.root), way_out) if run.is_local else _lease(run, way_out, tell):
        yield


@contextmanager
def reading(run: Storage, tell: Callable[[str], None] = _print) -> Iterator[None]:
    """Keep jobs and other readers away from ``run`` during the block, without writing in it: it may be read-only.

    On an object store, only a job that is at work when the block begins is noticed. ``tell`` prints a line on one that
    may be.

    Raises:
        RunInUseError: a job or another reader holds it.
    """
    if not run.is_local:
        _wait_until_free(run, WAY_OUT, tell)
        yield
        return
    with _local_lock_of_reader(Path(run.root)):
        yield


def _about_this_job() -> Holder:
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S %Z")}


def _who(holder: Holder) -> str:
    return f"process {holder.get('pid', '?')} on {holder.get('host', '?')}, since {holder.get('since', '?')}"


def _refused(run: object, holder: Holder, way_out: str = WAY_OUT) -> RunInUseError:
    other = f"another job ({_who(holder)})" if holder else "another command, such as replay_to_mlflow.py or review.py"
    return RunInUseError(f"{run} is in use by {other}; wait until it ends, or {way_out}")


@contextmanager
def _local_lock(folder: Path, way_out: str) -> Iterator[None]:
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    # Without a buffer, which would be written again, and fail again, when the file is closed.
    with (folder / LOCK).open("a+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _refused(folder, _holder(file), way_out) from error
        except OSError as error:
            reason = f"{folder} cannot be locked ({error.strerror}), so two jobs on it would not notice each other"
            raise UserError(f"{reason}; choose a --run-dir on a filesystem with locks") from error
        try:
            file.truncate(0)
            file.write(json.dumps(_about_this_job()).encode())
        except OSError as error:  # it names no file
            raise OSError(error.errno, error.strerror, str(folder / LOCK)) from error
        try:
            yield
        finally:
            with suppress(OSError):  # an earlier failure is reported
                file.truncate(0)


@contextmanager
def _local_lock_of_reader(folder: Path) -> Iterator[None]:
    if not (folder / LOCK).exists():  # no job has worked on it
        yield
        return
    with (folder / LOCK).open("rb") as file:
        try:
            _lock_to_read(file)
        except BlockingIOError as error:
            raise _refused(folder, _holder(file)) from error
        except OSError:
            pass  # a filesystem without locks, on which no job can run
        yield


def _lock_to_read(file: BinaryIO) -> None:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        # NFS locks a file that is open for reading only for several readers at once.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


def _holder(file: BinaryIO) -> Holder:
    """Return what the job that holds the lock wrote about itself; empty if it has not yet, or a reader holds it."""
    file.seek(0)
    try:
        holder = cast(Holder, json_object(file.read()))
    except ValueError:
        return {}
    # A killed job could not take back what it wrote.
    is_dead = holder.get("host") == socket.gethostname() and not psutil.pid_exists(holder.get("pid", 0))
    return {} if is_dead else holder


@contextmanager
def _lease(run: Storage, way_out: str, tell: Callable[[str], None]) -> Iterator[None]:
    taken_over.clear()
    mine: Holder = {**_about_this_job(), "id": uuid.uuid4().hex}
    _wait_until_free(run, way_out, tell)
    try:
        run.write_json(LOCK, {**mine, "renewals": 0})
        time.sleep(SETTLE_SECONDS)
        if (holder := _lease_of(run)).get("id") != mine["id"]:  # two jobs started at once; the later claim wins
            raise _refused(run, holder, way_out)
        with _renewed(run.impatient(), mine, tell):
            yield
    finally:
        with suppress(*STORE_FAILURES):  # the claim goes stale by itself, and an earlier failure is reported
            if _lease_of(run.impatient()).get("id") == mine["id"]:
                run.impatient().delete(LOCK)


@contextmanager
def _renewed(run: Storage, mine: Holder, tell: Callable[[str], None]) -> Iterator[None]:
    """Renew a claim during the block."""
    ended = threading.Event()
    thread = threading.Thread(target=_renew, args=(run, mine, ended, tell), name="run_lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(SETTLE_SECONDS)


def _wait_until_free(run: Storage, way_out: str, tell: Callable[[str], None]) -> None:
    """Return at once if nobody holds ``run``, else once the claim is gone or unrenewed for ``STALE_SECONDS``.

    Time is measured by this machine's clock: the clocks of two machines may differ by more than that.
    """
    first, watched = _lease_of(run), time.monotonic()
    if first:
        tell(f"{run} is, or was, in use by {_who(first)}; checking whether that job is still alive ...")
    while first and time.monotonic() - watched < STALE_SECONDS:
        time.sleep(min(1.0, STALE_SECONDS))
        asked = time.monotonic()
        now = _lease_of(run)
        if time.monotonic() - asked > RENEW_SECONDS:  # the store was unreachable, for the holder as well
            watched = time.monotonic()
        if now and now != first:
            raise _refused(run, now, way_out)
        if not now:
            return


def _renew(run: Storage, mine: Holder, ended: threading.Event, tell: Callable[[str], None]) -> None:
    """Renew the claim until the job ends; end the job if another one assumed it to be dead."""
    renewals = 0
    while not ended.wait(RENEW_SECONDS):
        # While the store is unreachable, nobody else can claim the run; the claim found afterwards decides.
        with suppress(*STORE_FAILURES):
            if (other := _lease_of(run)).get("id", mine["id"]) != mine["id"]:
                tell(f"error: {_refused(run, other)}; that job assumed this one to be dead")
                taken_over.set()
                os.kill(os.getpid(), signal.SIGTERM)
                return
            renewals += 1
            run.write_json(LOCK, {**mine, "renewals": renewals})


def _lease_of(run: Storage) -> Holder:
    """Return the claim that the holder has written; empty if there is none."""
    try:
        data = run.read(LOCK)
    except FileNotFoundError:
        return {}
    if not data.strip():  # left by a job on a disk, and copied to a store
        return {}
    try:
        return cast(Holder, json_object(data))
    except ValueError:
        return {"unreadable": data.hex()}
