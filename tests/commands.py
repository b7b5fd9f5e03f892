"""Commands as users start them: in this process where only their outcome counts, else in one of their own."""

import io
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from pipelines.run.lock import taken_over
from tests.project import ROOT


@dataclass(frozen=True)
class Ended:
    """How a command ended, and its output."""

    code: int
    stdout: str
    stderr: str


Command = Callable[..., Ended]


@contextmanager
def interrupts_as_before() -> Iterator[None]:
    """Undo after the block what a command does in its process: its answers to signals, and what those leave."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    hook = sys.unraisablehook
    try:
        yield
    finally:
        taken_over.clear()
        sys.unraisablehook = hook
        for number, handler in handlers.items():
            signal.signal(number, handler)


def run_script(*words: str, **variables: str) -> Ended:
    """Run a script as ``python SCRIPT ...`` does, but in this process, which has imported Ray and PyTorch already."""
    output, errors = io.StringIO(), io.StringIO()
    with (
        interrupts_as_before(),
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(output),
        redirect_stderr(errors),
    ):
        patch.chdir(ROOT)
        patch.setattr(sys, "argv", list(words))
        patch.setattr(sys, "path", list(sys.path))  # commands insert their project
        patch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))  # and set this
        for name, value in variables.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(words[0], run_name="__main__")
    return Ended(int(ended.value.code or 0), output.getvalue(), errors.getvalue())


def ray_environment(address: str = "") -> dict[str, str]:
    """Return the environment of a command on the cluster at ``address``, or on one that it starts itself."""
    own = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return own | ({"RAY_ADDRESS": address} if address else {})


def run_python(*words: str, address: str = "", seconds: float = 280) -> Ended:
    """Run ``python WORDS`` in the project's folder and a process of its own, on the cluster at ``address``."""
    ended = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=ray_environment(address),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)
