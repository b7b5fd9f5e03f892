"""Command lines of this project for a run, quoted for the shell."""

import shlex
from pathlib import Path

from pipelines.run.storage import Storage

PROJECT = Path(__file__).resolve().parents[2]


def command_of(name: str, run: Storage, *options: str) -> str:
    """Return the command ``pipelines/{name}.py`` for ``run``, with more options, as it works in this folder."""
    script = f"pipelines/{name}.py"
    return shlex.join(
        ["python", script if Path.cwd() == PROJECT else str(PROJECT / script), "--run-dir", run.root, *options]
    )
