"""An interruption while models are logged, by a thread that cannot be stopped."""

import subprocess
import sys

import pytest

from tests.project import ROOT

# Logging a model is replaced by what it does most of the time.
PROGRAM = """
import os, signal, threading, torch
from pipelines.job.command_line import run_command
from pipelines.tracking import publish

def work(*_):
    matrix = torch.ones(600, 600)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    while True:
        matrix @ matrix

publish._publish = work
run_command(lambda: publish.publish(None, None, None, publish.PublishSettings("")))
"""


@pytest.mark.processes
def test_an_interruption_has_its_own_exit_code_and_no_abort() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.stderr == "\ninterrupted; run the same command again to resume\n"
    assert ended.returncode == 130
