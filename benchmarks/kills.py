"""Repeated kills of a small job at random times; its weights must be bit-identical to those of an undisturbed job.

    python -m benchmarks.kills --kills 20

Each kill sends SIGKILL to a training worker, the driver, a raylet (the node, with all its workers), or everything at
once; each target equally often, in random order. After the death of the driver or the node the same command is run
again.
"""

import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import tyro

from benchmarks.measure import print_circumstances

ROOT = Path(__file__).parents[1]
TARGETS = ("worker", "driver", "node", "everything")


@dataclass(frozen=True)
class Arguments:
    """Kill a job at random times and compare its weights with those of an undisturbed job."""

    kills: int = 20
    """Number of kills before the job may finish."""
    seed: int = 0
    """Seed of the order of the targets and of the times."""
    epochs: int = 45
    """Epochs of each of the two replicas; with too few, the job ends before the last kill."""
    longest_seconds: float = 45.0
    """Longest time between a start, or the previous kill, and a kill."""


def _command(run: Path, epochs: int) -> list[str]:
    recipe = f"--recipe demo --replicas 2 --epochs {epochs} --dead-head-epochs 0 --policies 1"
    options = f"{recipe} --run-dir {run} --checkpoint-minutes 0.02 --max-failures 10"
    return [sys.executable, "pipelines/train_ensemble.py", *options.split()]


def _start(run: Path, epochs: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    environment.pop("RAY_ADDRESS", None)
    log = run.with_suffix(".log").open("ab")
    return subprocess.Popen(_command(run, epochs), cwd=ROOT, env=environment, stdout=log, stderr=log)  # noqa: S603


def _family(job: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(job.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _kill(target: str, job: subprocess.Popen[bytes], family: list[psutil.Process], chance: random.Random) -> bool:
    """Kill a target; return False if no such process was running."""
    driver = psutil.Process(job.pid)
    chosen = {
        "worker": [p for p in family if "ray::RayTrainWorker" in _title(p)],
        "node": [p for p in family if "/raylet/raylet" in _title(p)],
        "driver": [driver],
        "everything": [driver, *family],
    }[target]
    _send_sigkill(chosen if target == "everything" else chance.sample(chosen, min(1, len(chosen))))
    return bool(chosen)


def _send_sigkill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _digests(run: Path) -> list[str]:
    return [hashlib.sha256((run / f"replicas/{k}/weights.safetensors").read_bytes()).hexdigest() for k in range(2)]


def _targets(kills: int, chance: random.Random) -> list[str]:
    targets = [TARGETS[kill % len(TARGETS)] for kill in range(kills)]
    chance.shuffle(targets)
    return targets


def _one_start(
    job: subprocess.Popen[bytes], targets: Sequence[str], longest_seconds: float, done: Counter[str],
    chance: random.Random,
) -> None:  # fmt: skip
    """Kill parts of a job until it is dead or all kills are done; then kill its remaining processes."""
    family: list[psutil.Process] = []
    while job.poll() is None and done.total() < len(targets):
        target, after = targets[done.total()], chance.uniform(5, longest_seconds)
        time.sleep(after)
        if job.poll() is not None:
            break
        family = _family(job)
        if _kill(target, job, family, chance):
            done[target] += 1
            print(f"{time.strftime('%H:%M:%S')} kill {done.total()}: {target}, after {after:.0f} s", flush=True)
        if target != "worker":
            time.sleep(2)
            break
    _send_sigkill([*family, *_family(job), *([psutil.Process(job.pid)] if job.poll() is None else [])])
    job.wait()


def main(arguments: Arguments) -> None:
    """Print each kill, and whether the weights equal those of the undisturbed job."""
    chance = random.Random(arguments.seed)  # noqa: S311
    targets = _targets(arguments.kills, chance)
    done: Counter[str] = Counter()
    starts = 1
    with tempfile.TemporaryDirectory() as folder:
        calm, killed = Path(folder) / "calm", Path(folder) / "killed"
        if _start(calm, arguments.epochs).wait():
            raise SystemExit(calm.with_suffix(".log").read_text())
        while done.total() < arguments.kills and not (killed / "report/report.json").exists():
            starts += 1
            _one_start(_start(killed, arguments.epochs), targets, arguments.longest_seconds, done, chance)
        if _start(killed, arguments.epochs).wait():
            raise SystemExit(killed.with_suffix(".log").read_text()[-3000:])
        same = _digests(killed) == _digests(calm)
    print(f"\n{done.total()} kills ({', '.join(f'{n} x {name}' for name, n in sorted(done.items()))}), {starts} starts")
    print(f"weights bit-identical to the undisturbed job's: {'yes' if same else 'NO'}")
    print_circumstances(1)
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
