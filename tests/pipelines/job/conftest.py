"""Commands in this process."""

import sys
from collections.abc import Callable, Iterator

import pytest

from pipelines.job.command_line import run_command
from tests.commands import Command, Ended, interrupts_as_before


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run a command's main in this process, as its file does when it is a script."""

    def command(main: Callable[[], int | None], *words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["pipelines/command.py", *words])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ended:
            run_command(main)
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    with interrupts_as_before():
        yield command
