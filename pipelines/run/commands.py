"""Command lines of this project for a run, quoted for the shell."""

import shlex

from pipelines.run.storage import Storage


def command_of(name: str, run: Storage, *options: str) -> str:
    """Return the command ``pipelines/{name}.py`` for ``run``, with more options."""
    return shlex.join(["python", f"pipelines/{name}.py", "--run-dir", run.root, *options])
