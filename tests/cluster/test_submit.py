"""Attempts of ``submit.py``: what uses one, what ends it at once, and what it says of Ctrl-C.

Ray's client asks a dashboard on loopback that answers as told; test_jobs.py has a real head.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import following, submit
from cluster.options import ADDRESS, JOB, parse
from cluster.submit import COMMIT_VARIABLE, RUN_DIR, main
from tests.cluster.dashboard import Dashboard, dashboard
from tests.cluster.test_following import WithoutReader
from tests.project import ROOT

pytestmark = [pytest.mark.processes, pytest.mark.timeout(60)]  # git tells the commit
SUCCEEDED = {"status": "SUCCEEDED", "driver_exit_code": 0}
RUNNING = {"status": "RUNNING"}
ENDED = (200, '{"type": "SUBMISSION", "entrypoint": "", "status": "SUCCEEDED"}')
UNREACHABLE = (500, "Traceback (most recent call last): the agent is busy")


def failed(code: int | None) -> dict[str, object]:
    return {"status": "FAILED", "driver_exit_code": code, "message": "the job's end"}


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dashboard]:
    monkeypatch.delenv("RAY_AUTH_MODE")
    for module in (following, submit):
        monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(following, "LOST_SECONDS", 0.2)
    monkeypatch.setattr(following, "LAST_LINES_SECONDS", 0.01)
    with dashboard() as state:
        yield state


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / JOB).parent.mkdir()
    (tmp_path / JOB).touch()
    return tmp_path


def words(project: Path, head: Dashboard, *others: str) -> list[str]:
    given = ["--run-dir", "s3://bucket/run", "--working-dir", str(project), "--address", head.address]
    return [*given, "--pause-seconds", "0", "--attempts", "3", *others]


def outcome(project: Path, head: Dashboard, *others: str) -> tuple[int, str]:
    said: list[str] = []
    code = main(parse(words(project, head, *others)), said.append)
    return code, "\n".join(said)


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([SUCCEEDED], 0),
        ([failed(1), failed(75), SUCCEEDED], 0),
        ([failed(1)] * 3, 1),
        ([failed(2)], 2),
        ([failed(3)], 3),
        ([{"status": "STOPPED"}], 130),
        # SIGTERM to the job alone, as of a head that is shut down: nobody has stopped the job.
        ([failed(130), SUCCEEDED], 0),
        ([failed(None), SUCCEEDED], 0),
        ([failed(-9)] * 3, 137),
        ([failed(-2), SUCCEEDED], 0),
    ],
)
def test_the_job_is_submitted_again_as_long_as_another_attempt_may_help(
    project: Path, head: Dashboard, outcomes: list[dict[str, object]], code: int
) -> None:
    head.outcomes = list(outcomes)
    assert outcome(project, head)[0] == code
    assert head.submitted == len(outcomes)


def test_why_a_job_could_not_start_is_told_in_full(project: Path, head: Dashboard) -> None:
    message = "runtime_env setup failed: Failed to set up runtime environment.\nNo matching distribution for torch==9"
    head.outcomes = [{**failed(None), "message": message}, SUCCEEDED]
    assert f"submit: {message}" in outcome(project, head)[1]


def test_a_job_that_is_lost_from_view_uses_no_attempt(project: Path, head: Dashboard) -> None:
    head.outcomes = [RUNNING]
    head.failures = [UNREACHABLE] * 60  # more than LOST_SECONDS twice
    head.failures.append(ENDED)
    code, said = outcome(project, head)
    assert (code, head.submitted) == (0, 1)
    assert said.count("the cluster has not answered for") >= 2
    assert "attempt" not in said


def test_a_job_that_ended_out_of_view_is_not_submitted_again(project: Path, head: Dashboard) -> None:
    head.outcomes, head.failures = [failed(3)], [UNREACHABLE] * 40
    assert outcome(project, head)[0] == 3
    assert head.submitted == 1


def test_a_job_that_its_cluster_does_not_know_any_more_is_submitted_again(project: Path, head: Dashboard) -> None:
    head.outcomes = [RUNNING, SUCCEEDED]
    submit_job = head.submit

    def on_a_head_that_dies(metadata: dict[str, str]) -> str:
        job = submit_job(metadata)
        if head.submitted == 1:
            head.jobs.clear()
        return job

    head.submit = on_a_head_that_dies  # type: ignore[method-assign]
    code, said = outcome(project, head)
    assert (code, head.submitted) == (0, 2)
    assert "attempt 1 of 3 ended with 75; retry in 0 s" in said


@pytest.mark.parametrize(
    "answer",
    [
        "Traceback\nValueError: Package size (600.00MiB) exceeds the maximum size of 512.00MiB. To exclude large files",
        "Traceback\nHTTPRequestEntityTooLarge: Maximum request body size 104857600 exceeded, actual body size 2",
    ],
)
def test_a_project_that_is_too_large_to_upload_is_refused_at_once_in_one_line(
    project: Path, head: Dashboard, answer: str
) -> None:
    head.refusal = (500, answer)
    code, said = outcome(project, head)
    assert code == 2
    connecting, uploading, error = said.splitlines()
    assert connecting == f"submit: connecting to the cluster at {head.address} ..."
    assert uploading == f"submit: uploading {project} ..."
    fix = f"move large files out of {project}, or list them in {project}/.rayignore"
    assert error == f"error: {answer.splitlines()[1]}; {fix}"


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (["--run-dir", "runs/paper"], "--run-dir runs/paper must be a URI, or a path from / that all nodes share"),
        (["--working-dir", "/nowhere"], "--working-dir /nowhere has no pipelines/train_ensemble.py"),
        (["--runtime-env", "/nowhere.yaml"], "--runtime-env /nowhere.yaml cannot be used ("),
        (["--runtime-env", "FOLDER/wrong.yaml"], "): it must be a file like cluster/runtime_env.yaml"),
        (["--address", "127.0.0.1:8265"], "--address 127.0.0.1:8265 must be the dashboard's address, with http://"),
        (
            ["--recipe", "demo"],
            "unrecognized arguments: --recipe; put the job's options after --, as in: submit.py --run",
        ),
        (["--attempts", "x"], "argument --attempts: invalid int value: 'x'"),
        (["--attempts", "0"], "--attempts must be at least 1"),
        (["--pause-seconds", "-1"], "--pause-seconds must not be negative"),
        (["--wait-seconds", "nan"], "--wait-seconds must be a number"),
        (["--address", "ray://head:10001"], "--address ray://head:10001 must be the dashboard's address, with http://"),
    ],
)
def test_a_mistake_in_the_options_is_told_before_the_cluster_is_asked(
    project: Path, others: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "wrong.yaml").write_text("pip: {packages: absent.txt}\n")
    given = [word.replace("FOLDER", str(project)) for word in others]
    with pytest.raises(SystemExit) as ended:
        parse(words(project, Dashboard(ADDRESS), *given))
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize(
    ("outcomes", "told"),
    [
        ([failed(1)], "interrupted; no job is known to run"),  # in the pause after a failure
        ([RUNNING], "job_1 continues; run the same command again to follow it"),
    ],
)
def test_ctrl_c_ends_it_in_one_line_that_says_whether_a_job_continues(
    project: Path, head: Dashboard, outcomes: list[dict[str, object]], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def say(line: str) -> None:
        said.append(line)
        if "retry in" in line:
            raise KeyboardInterrupt

    head.outcomes = list(outcomes)
    if outcomes == [RUNNING]:
        monkeypatch.setattr(submit, "follow", interrupt)
    assert main(parse(words(project, head)), say) == 130
    assert said[-1] == f"\nsubmit: {told}"


@pytest.mark.parametrize("others", [["--run-dir", "s3://bucket/run"], ["--run-dir", "s3://bucket/run/"]])
@pytest.mark.parametrize("epochs", ["1", "2"])
def test_a_job_that_already_runs_is_followed_and_other_options_are_told(
    project: Path, head: Dashboard, epochs: str, others: list[str]
) -> None:
    entrypoint = f"python {JOB} --epochs 1 --run-dir s3://bucket/run"
    about = {"type": "SUBMISSION", "submission_id": "job_0", "metadata": {RUN_DIR: "s3://bucket/run"}}
    head.jobs["job_0"] = {**about, **RUNNING, "entrypoint": entrypoint}
    head.failures = [ENDED]
    code, said = outcome(project, head, *others, "--", "--epochs", epochs)
    assert (code, head.submitted) == (0, 0)
    first = said.splitlines()[1]
    assert first.startswith("submit: job_0 already runs on this run directory")
    assert ("with other options, which stay in force" in first) == (epochs != "1")
    assert (entrypoint in first) == (epochs != "1")


def test_a_traceback_of_the_head_is_told_by_its_last_line(project: Path, head: Dashboard) -> None:
    head.refusal = (500, "Traceback (most recent call last):\n  File x, line 1\nOSError: the disk is full\n")
    code, said = outcome(project, head, "--attempts", "1")
    assert (code, said.splitlines()[2:]) == (75, ["submit: OSError: the disk is full"])


def test_a_head_that_does_not_answer_is_told_in_one_line_with_what_to_look_at(project: Path, head: Dashboard) -> None:
    code, said = outcome(project, head, "--address", "http://127.0.0.1:9", "--wait-seconds", "-1")
    error = said.splitlines()[-1]
    assert (code, said.count("error: ")) == (75, 1)
    assert error.startswith("error: no answer from http://127.0.0.1:9 for -1 s: ")
    assert error.endswith("; check --address, and whether `ray dashboard` still runs")


def test_a_proxy_of_the_environment_gets_no_request_to_this_machine(
    project: Path, head: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    head.outcomes = [SUCCEEDED]
    assert outcome(project, head, "--wait-seconds", "0")[0] == 0


def test_ctrl_c_ends_it_at_once_when_nothing_comes_through_the_tunnel(project: Path, head: Dashboard) -> None:
    head.outcomes, head.stalled = [RUNNING], threading.Event()
    with subprocess.Popen(
        [sys.executable, str(ROOT / "cluster/submit.py"), *words(project, head)],
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        stdout=subprocess.PIPE,
        text=True,
        # Tests that run in the background ignore Ctrl-C, and their child processes would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as submission:
        try:
            assert head.stalled.wait(40)
            submission.send_signal(signal.SIGINT)
            said, _ = submission.communicate(timeout=following.REQUEST_SECONDS / 2)
        finally:
            submission.kill()
    assert submission.returncode == 130
    assert said.endswith("submit: job_1 continues; run the same command again to follow it\n")


def test_a_job_is_submitted_and_followed_though_nobody_reads_the_lines_about_it(
    project: Path, head: Dashboard, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head.outcomes = [failed(1), SUCCEEDED]
    monkeypatch.setattr(sys, "stdout", WithoutReader())
    assert main(parse(words(project, head)), submit.tell) == 0
    assert head.submitted == 2
    said = capsys.readouterr().err
    assert said.count("takes nothing any more (Broken pipe): a job's output is not shown from here on") == 1
    assert said.index("submit: connecting to the cluster at") < said.index("submit: attempt 1 of 3 ended with 1; retry")


def test_an_error_is_told_though_nobody_reads_standard_output(
    project: Path, head: Dashboard, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head.address = "http://127.0.0.1:1"
    monkeypatch.setattr(sys, "stdout", WithoutReader())
    assert main(parse([*words(project, head), "--wait-seconds", "0"]), submit.tell) == submit.LOST_EXIT_CODE
    assert "\nerror: no answer from http://127.0.0.1:1" in capsys.readouterr().err


def test_the_commit_of_a_repository_around_an_unpacked_project_is_not_its_own(project: Path) -> None:
    own = ["-c", "user.name=x", "-c", "user.email=x"]
    for command in (["init", "-q"], [*own, "commit", "-q", "--allow-empty", "-m", "dotfiles"]):
        subprocess.run(["git", "-C", str(project), *command], check=True)
    assert submit._commit(project) == {}
    for command in (["add", JOB], [*own, "commit", "-q", "-m", "project"]):
        subprocess.run(["git", "-C", str(project), *command], check=True)
    assert len(submit._commit(project)[COMMIT_VARIABLE]) == 40
