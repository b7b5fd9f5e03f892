"""Log of each start of a job on a run directory: one file with its provenance, seconds by stage and outcome."""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, NotRequired

from pipelines.job.circumstances import Start, this_start, why_no_commit
from pipelines.job.console import complain
from pipelines.run.directory import JOBS, RUN
from pipelines.run.storage import Storage
from pipelines.run.storage_failures import STORE_FAILURES

RUNNING, ENDED, INTERRUPTED = "running", "ended", "interrupted"


class LoggedJob(Start):
    """Content of the log of one start; those of earlier versions, or killed in the first minute, have no usage."""

    stage_seconds: dict[str, float]
    outcome: str
    usage: NotRequired[dict[str, float]]
    estimate: NotRequired[dict[str, float]]
    limit: NotRequired[str]
    limit_nodes: NotRequired[int]


class JobLog:
    """The log of this start. Needs a connection to a Ray cluster."""

    def __init__(self, run: Storage) -> None:
        now = datetime.now(UTC)
        self._writing = threading.Lock()
        self._run, self._name = run, f"{JOBS}/{now:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}.json"
        self._entry: dict[str, Any] = {
            **this_start(),
            "stage_seconds": {},
            # Remains if the job is killed.
            "outcome": RUNNING,
        }
        run.write_json(self._name, self._entry)
        if not self._entry["commit"]:
            complain(f"warning: the commit of this code is not recorded: {why_no_commit()}")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; an interrupted stage counts for as long as it lasted."""
        started = time.monotonic()
        try:
            yield
        finally:
            seconds = {**self._entry["stage_seconds"], name: round(time.monotonic() - started, 3)}
            self.keep("stage_seconds", seconds)

    def keep(self, name: str, value: Any) -> None:
        """Add ``value`` to the log under ``name``, or replace it; from any thread."""
        with self._writing:
            self._entry[name] = value
            self._try_to_write()

    @contextmanager
    def whole_job(self) -> Iterator[None]:
        """Record at the end of the block how the job ended."""
        outcome = RUNNING
        try:
            yield
        except KeyboardInterrupt:
            outcome = INTERRUPTED
            raise
        except Exception as error:
            outcome = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            raise
        else:
            outcome = ENDED
        finally:
            self.keep("outcome", outcome)

    def _try_to_write(self) -> None:
        with suppress(*STORE_FAILURES):  # the store may be what failed, and has been retried
            run = self._run.impatient()
            if run.exists(RUN):  # do not recreate a run directory that was removed
                run.write_json(self._name, self._entry)


def read_jobs(run: Storage) -> list[LoggedJob]:
    """Return the logs of all starts on a run directory, oldest first."""
    # The name of a log begins with its time; others are an editor's, or somebody's notes.
    names = (name for name in run.files(JOBS) if name[0].isdigit() and name.endswith(".json"))
    return [run.read_json(f"{JOBS}/{name}") for name in names]


def stage_seconds(jobs: list[LoggedJob]) -> dict[str, float]:
    """Return seconds by stage, summed over all starts."""
    names = dict.fromkeys(name for job in jobs for name in job["stage_seconds"])
    return {name: sum(job["stage_seconds"].get(name, 0.0) for job in jobs) for name in names}
