"""Trials of the mutants: each is put into a copy of the project, where its tests run."""

import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tyro

from tests.mutants import Mutant, mutants
from tests.project import ROOT

TESTS_FAILED = 1
COPIED = ("benchmarks", "cluster", "experiments", "googlenet", "pipelines", "pyproject.toml", "tests")


@dataclass(frozen=True)
class Arguments:
    """Break the code in one place at a time, and run the tests that have to fail."""

    only: str = ""
    """Only claims that contain this text."""
    cluster: bool = False
    """Also try mutants that only tests on a Ray cluster notice."""
    processes: int = 2
    """Number of mutants tried at once, each in a copy of the project."""
    timeout_seconds: float = 300.0
    """A mutant whose tests take longer counts as noticed, because they hang."""


def is_noticed(mutant: Mutant, project: Path, arguments: Arguments) -> bool:
    """Return whether a test fails on ``mutant``, applied to the copy in ``project`` and then reverted."""
    file = project / mutant.file
    original = file.read_text()
    file.write_text(original.replace(mutant.old, mutant.new))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{mutant.tests}"]
    if not mutant.needs_cluster:
        command += ["-m", "not cluster"]
    environment = {**os.environ, "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    try:
        ended = subprocess.run(
            command, cwd=project, env=environment, capture_output=True, timeout=arguments.timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return True
    else:
        return ended.returncode == TESTS_FAILED
    finally:
        file.write_text(original)


def try_all() -> int:
    """Try the mutants that the command line asks for: print the outcome of each; return 1 if any survives."""
    arguments = tyro.cli(Arguments)
    chosen = [m for m in mutants() if arguments.only in m.claim and (arguments.cluster or not m.needs_cluster)]
    copies: queue.Queue[Path] = queue.Queue()

    def try_one(mutant: Mutant) -> bool:
        project = copies.get()
        started = time.monotonic()
        noticed = is_noticed(mutant, project, arguments)
        copies.put(project)
        word = "noticed " if noticed else "SURVIVED"
        print(f"{word} {time.monotonic() - started:4.0f} s  {mutant.claim}  ({mutant.file})", flush=True)
        return noticed

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.processes) as pool:
        for number in range(arguments.processes):
            copies.put(copy_of_project(Path(folder) / str(number)))
        survivors = list(pool.map(try_one, chosen)).count(False)
    left_out = sum(mutant.needs_cluster for mutant in mutants()) if not arguments.cluster else 0
    print(f"{survivors} of {len(chosen)} mutants survived; {left_out} need a cluster (--cluster)")
    return int(survivors > 0)


def copy_of_project(folder: Path) -> Path:
    """Copy what the tests need, and return the folder."""
    folder.mkdir()
    for name in COPIED:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    return folder
