"""Start of a command: closed streams, a folder that is gone; and what it does not wait for."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.job.command_line import run_command
from pipelines.job.console import say
from tests.commands import interrupts_as_before
from tests.project import ROOT

START = "from pipelines.job.command_line import run_command; from pipelines.job.console import say; import os; "


def shell(python: str, main: str, redirections: str = "") -> "subprocess.CompletedProcess[str]":
    """Run ``main`` as a command in the shell, where ``python`` is how Python is started."""
    program = f"{START}run_command(lambda: {main})"
    words = ["/bin/sh", "-c", f'{python} -c "$1" {redirections}', "sh", program]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.processes
def test_a_command_whose_standard_streams_are_closed_keeps_its_files_clean(tmp_path: Path) -> None:
    file = tmp_path / "file"
    # A library prints to the numbers of standard output and standard error while the command has its first file open.
    main = f"[say('line'), open({str(file)!r}, 'w'), os.write(1, b'x'), os.write(2, b'x')] and 7"
    assert shell(f"'{sys.executable}'", main, "<&- >&- 2>&-").returncode == 7
    assert file.read_bytes() == b""


@pytest.mark.linux
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
    with interrupts_as_before(), pytest.raises(SystemExit) as ended:
        run_command(lambda: 0)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: the current folder has been removed; ")


def test_a_command_looks_for_no_garbage_among_the_objects_of_libraries() -> None:
    before = gc.get_threshold()
    with interrupts_as_before(), pytest.raises(SystemExit):
        run_command(lambda: 0)
    frozen, thresholds = gc.get_freeze_count(), gc.get_threshold()
    gc.unfreeze()
    gc.set_threshold(*before)
    assert frozen > 10_000
    assert thresholds[0] >= 100_000


@pytest.mark.processes
def test_names_in_another_encoding_than_utf_8_are_refused_with_the_variable_to_set() -> None:
    ascii_names = "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0"
    refused = shell(f"{ascii_names} '{sys.executable}'", "0")
    assert (refused.returncode, refused.stderr) == (
        2,
        "error: the names of files are read as ascii here; set PYTHONUTF8=1 to read them as UTF-8\n",
    )
    assert shell(f"{ascii_names.replace('UTF8=0', 'UTF8=1')} '{sys.executable}'", "7").returncode == 7


@pytest.mark.processes
def test_a_name_that_the_terminal_cannot_show_ends_no_job() -> None:
    shown = shell(f"PYTHONIOENCODING=ascii '{sys.executable}'", "say('K' + chr(228) + 'tzchen') or 7")
    assert (shown.returncode, shown.stdout, shown.stderr) == (7, "K\\xe4tzchen\n", "")


@pytest.mark.processes
def test_help_and_errors_wait_for_no_heavy_package(tmp_path: Path) -> None:
    nowhere, weights = str(tmp_path / "nowhere"), tmp_path / "weights.npz"
    weights.write_bytes(b"weights")
    refused = {
        "train_ensemble": ["--recipe", "paper", "--data", nowhere, "--run-dir", f"{tmp_path}/new"],
        "prepare_dataset": ["--data", nowhere, "--run-dir", f"{tmp_path}/new"],
        "evaluate_ensemble": ["--weights", str(weights), "--data", nowhere, "--run-dir", f"{tmp_path}/new"],
        "compare_runs": [nowhere, nowhere],
        "export_ensemble": ["--run-dir", nowhere, "--output", f"{tmp_path}/out"],
        "export_onnx": ["--run-dir", nowhere, "--output", f"{tmp_path}/out.onnx"],
        "replay_to_mlflow": ["--run-dir", nowhere],
        "review": ["--run-dir", nowhere],
    }
    heavy = ("torch", "ray", "mlflow", "matplotlib", "jinja2")
    program = f"""
import importlib, sys
from pipelines.errors import UserError
def imported(): return [name for name in {heavy} if name in sys.modules]
for command, options in {refused}.items():
    module = importlib.import_module("pipelines." + command)
    print(command, "imports", *imported())
    sys.argv[1:] = options
    try:
        module._main()
    except UserError as error:
        print(command, "refuses and imports", *imported())
        assert {nowhere!r} in str(error), error
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    # One process for all: the first line that names a package is that of the command which imports it.
    told = [line for line in ended.stdout.splitlines() if " imports" in line]
    assert told == [f"{command} {what}imports" for command in refused for what in ("", "refuses and ")]
