"""The line before an object store is asked about a run directory."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.errors import UserError
from pipelines.job.run_option import run_at
from pipelines.run.named_recipes import demo
from pipelines.train_ensemble import Arguments, run_job


@pytest.mark.parametrize("uri", ["s3://key:topsecret@bucket/run", "https://host/run?signature=topsecret"])
def test_a_secret_in_an_address_is_not_printed(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_at(uri)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err in ("looking at s3://bucket/run ...\n", "looking at https://host/run ...\n")


def test_a_teacher_on_a_store_is_named_before_it_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student = replace(demo(), name="distil", teacher="memory://absent", teacher_policy="best:3")
    with pytest.raises(UserError, match="memory://absent"):
        run_job(Arguments(student, str(tmp_path / "run")))
    assert capsys.readouterr().err == "looking at memory://absent ...\n"
