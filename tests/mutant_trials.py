"""Trials of the mutants: each is put into a copy of the project, where its tests run, which pass without it."""

import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import tyro

from tests.mutants import Mutant, mutants
from tests.project import ROOT

T = TypeVar("T")
TESTS_FAILED = 1
COPIED = ("benchmarks", "cluster", "docs", "experiments", "googlenet", "pipelines", "pyproject.toml", "tests")


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
    original, before = file.read_text(), file.stat()
    file.write_text(original.replace(mutant.old, mutant.new))
    try:
        return status_of([mutant.tests], mutant.needs_cluster, project, arguments) in (TESTS_FAILED, None)
    finally:
        file.write_text(original)
        # Python tells the two files apart by their times and would run what it compiled of the other one.
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def status_of(tests: Sequence[str], needs_cluster: bool, project: Path, arguments: Arguments) -> int | None:
    """Return the status with which pytest ends on test files of the copy in ``project``; None if it hangs."""
    command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", *(f"tests/{name}" for name in tests)]
    if not needs_cluster:
        command += ["-m", "not cluster"]
    environment = {**os.environ, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    # Python would compile the whole project anew in each trial.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    seconds = arguments.timeout_seconds * len(tests)
    try:
        ended = subprocess.run(command, cwd=project, env=environment, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return None
    return ended.returncode


def try_all() -> int:
    """Try the mutants that the command line asks for: print the outcome of each; return 1 if any survives.

    Return 1 as well if the tests of any do not pass without it: what they would say of it means nothing.
    """
    arguments = tyro.cli(Arguments)
    chosen = [m for m in mutants() if arguments.only in m.claim and (arguments.cluster or not m.needs_cluster)]

    def try_one(mutant: Mutant, project: Path) -> bool:
        started = time.monotonic()
        noticed = is_noticed(mutant, project, arguments)
        word = "noticed " if noticed else "SURVIVED"
        print(f"{word} {time.monotonic() - started:4.0f} s  {mutant.claim}  ({mutant.file})", flush=True)
        return noticed

    with copies_of_project(arguments.processes) as in_copies:
        if red := red_without_mutants(chosen, in_copies, arguments):
            print(f"tests that fail or hang without a mutant: {', '.join(red)}")
            return 1
        survivors = list(in_copies(try_one, chosen)).count(False)
    left_out = sum(mutant.needs_cluster for mutant in mutants()) if not arguments.cluster else 0
    print(f"{survivors} of {len(chosen)} mutants survived; {left_out} need a cluster (--cluster)")
    return int(survivors > 0)


Files = tuple[list[str], bool]  # of tests, and whether they need a cluster
Work = Callable[[Callable[[T, Path], bool], Iterable[T]], Iterator[bool]]


def red_without_mutants(chosen: Sequence[Mutant], in_copies: Work[Files], arguments: Arguments) -> list[str]:
    """Return the test files of mutants that fail or hang although nothing was changed."""
    files = {
        needs_cluster: sorted({m.tests for m in chosen if m.needs_cluster == needs_cluster})
        for needs_cluster in (False, True)
    }

    def failing(groups: list[Files]) -> list[Files]:
        passed = in_copies(lambda group, project: status_of(*group, project, arguments) == 0, groups)
        return [group for group, has_passed in zip(groups, passed, strict=True) if not has_passed]

    # Many files in one process need one import of PyTorch. If any of them fails, each is tried by itself.
    shares = [
        (files[kind][start :: arguments.processes], kind) for kind in files for start in range(arguments.processes)
    ]
    alone = [([name], kind) for names, kind in failing([share for share in shares if share[0]]) for name in names]
    return [name for (name,), _ in failing(alone)]


@contextmanager
def copies_of_project(number: int) -> Iterator[Work[T]]:
    """Give what calls a function for several things, ``number`` at once, each with a copy of the project to itself."""
    copies: queue.Queue[Path] = queue.Queue()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(number) as pool:
        for name in range(number):
            copies.put(copy_of_project(Path(folder) / str(name)))

        def in_copies(call: Callable[[T, Path], bool], things: Iterable[T]) -> Iterator[bool]:
            def call_in_copy(thing: T) -> bool:
                project = copies.get()
                try:
                    return call(thing, project)
                finally:
                    copies.put(project)

            return pool.map(call_in_copy, things)

        yield in_copies


def copy_of_project(folder: Path) -> Path:
    """Copy what the tests need, and return the folder."""
    folder.mkdir()
    for name in COPIED:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    return folder
