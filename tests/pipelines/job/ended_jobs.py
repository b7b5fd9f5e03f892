"""Jobs in processes of their own that tests interrupt and kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipelines.run.recipe import Recipe
from tests.commands import ray_environment
from tests.project import ROOT
from tests.servers import ray_processes

LONGEST_SECONDS = 15
SHARDS = "predictions/??????.parquet"  # three of 42 images


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def end_all(processes: list[psutil.Process]) -> None:
    """Kill processes that a failed test would leave, some of them stopped: nobody else ends those."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@contextmanager
def ended_on_failure(job: subprocess.Popen[bytes]) -> Iterator[None]:
    """Kill a command and all that it has started if the block fails."""
    try:
        yield
    except BaseException:
        with suppress(psutil.NoSuchProcess):
            end_all([*family(job), psutil.Process(job.pid)])
        raise


@dataclass
class Job:
    """A command that trains and evaluates in ``run``, on the cluster at ``address`` or on one of its own."""

    run: Path
    recipe: Recipe
    address: str = ""
    options: tuple[str, ...] = ()

    @property
    def log(self) -> Path:
        return self.run.with_name("log")

    def start_until(self, pattern: str) -> subprocess.Popen[bytes]:
        """Start the command and wait until there are files of that pattern."""
        file = self.run.with_name("recipe.json")
        file.write_text(json.dumps(self.recipe.to_dict()))
        words = ["--recipe", str(file), "--run-dir", str(self.run), *self.options]
        with self.log.open("ab") as output:
            job = subprocess.Popen(
                [sys.executable, "pipelines/train_ensemble.py", *words],
                cwd=ROOT,
                env=ray_environment(self.address),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Tests that run in the background ignore Ctrl-C, and their child processes would too.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
            )
        with ended_on_failure(job):
            while not list(self.run.glob(pattern)):
                assert job.poll() is None, self.log.read_text()
                time.sleep(0.02)
        return job

    def kill_at_its_first_shard(self) -> None:
        """Start the command; kill it, with its only predictor, as soon as there are predictions of a shard.

        The predictor is found while it starts, and stopped at the first file: it cannot finish the other shards.
        """
        others = set(self._predictors())
        job = self.start_until("preflight.json")
        found: list[psutil.Process] = []
        try:
            with ended_on_failure(job):
                while not found:
                    assert job.poll() is None, self.log.read_text()
                    time.sleep(0.3)  # it imports PyTorch for seconds after it appears
                    found = [process for process in self._predictors() if process not in others]
                while not list(self.run.glob(SHARDS)):
                    assert job.poll() is None, self.log.read_text()
                    time.sleep(0.005)
                found[0].suspend()
                job.kill()
                assert job.wait() == -signal.SIGKILL  # it had not ended by itself
        finally:
            end_all(found)  # Ray would ask it to end, and wait for its answer
            psutil.wait_procs(found, timeout=20)

    def _predictors(self) -> Iterator[psutil.Process]:
        return ray_processes(self.address, "MapWorker")


def interrupt(job: Job, process: subprocess.Popen[bytes]) -> None:
    """Press Ctrl-C in training; the job has to end within seconds with all its processes, and say how to resume."""
    children = family(process)
    try:
        interrupted = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to all processes in the foreground
        assert process.wait(timeout=60) == 130, job.log.read_text()
        assert time.monotonic() - interrupted < LONGEST_SECONDS
        assert job.log.read_text().rstrip().endswith("interrupted; run the same command again to resume")
        assert "Traceback" not in job.log.read_text()
        _, alive = psutil.wait_procs(children, timeout=20)
        assert not alive
    finally:
        process.kill()
        end_all(children)
    assert not (job.run / "report").exists()
