"""What a command finds when it starts: standard streams that are closed or full, a current folder that is gone."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.job.command_line import run_command
from pipelines.job.console import say
from tests.project import ROOT

START = "from pipelines.job.command_line import run_command; from pipelines.job.console import say; import os; "


def ended(main: str, redirections: str) -> "subprocess.CompletedProcess[str]":
    program = f"{START}run_command(lambda: {main})"
    shell = f"'{sys.executable}' -c \"$1\" {redirections}"
    return subprocess.run(
        ["/bin/sh", "-c", shell, "sh", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.processes
def test_a_command_whose_standard_streams_are_closed_keeps_its_files_clean(tmp_path: Path) -> None:
    file = tmp_path / "file"
    # A library prints to the numbers of standard output and standard error while the command has its first file open.
    main = f"[say('line'), open({str(file)!r}, 'w'), os.write(1, b'x'), os.write(2, b'x')] and 7"
    assert ended(main, "<&- >&- 2>&-").returncode == 7
    assert file.read_bytes() == b""


def test_a_full_disk_behind_standard_output_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OSError, match="No space left on device: 'standard output'"):
            say("line")
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space left"):  # what Python still holds of the line
            full.close()


def test_a_current_folder_that_has_been_removed_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: 0)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: the current folder has been removed; ")
