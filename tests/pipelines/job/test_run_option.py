"""The line before an object store is asked about a run directory."""

import pytest

from pipelines.errors import UserError
from pipelines.job.run_option import run_at, run_to_write_at
from pipelines.run.directory import check_folder
from pipelines.run.places import shown
from pipelines.tracking.recipe_option import recipe_of_options


@pytest.mark.parametrize("uri", ["s3://key:topsecret@bucket/run", "https://host/run?signature=topsecret"])
def test_a_secret_in_an_address_is_not_printed(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_at(uri)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err in ("looking at s3://bucket/run ...\n", "looking at https://host/run ...\n")


def test_a_secret_with_a_slash_is_not_printed_and_a_container_is() -> None:
    assert shown("s3://key:top/secret@bucket/run") == "s3://bucket/run"
    assert shown("https://u:p?w@host/run") == "https://host/run"
    assert shown("s3://host:9000/run@2") == "s3://host:9000/run@2"
    assert (
        shown("abfss://photos@account.dfs.core.windows.net/run?sig=x")
        == "abfss://photos@account.dfs.core.windows.net/run"
    )
    assert shown("hf://datasets/o/n@rev") == "hf://datasets/o/n@rev"


def test_a_run_is_not_begun_where_other_processes_do_not_see_it_or_nothing_can_be_written() -> None:
    with pytest.raises(UserError, match=r"^memory://run: no other process .*; choose a folder, or s3://"):
        run_to_write_at("memory://run")
    for uri in ("https://host/run", "hf://datasets/me/run"):
        with pytest.raises(UserError, match=rf"^{uri}: nothing can be written .*; choose a folder, or s3://"):
            check_folder(run_at(uri))


def test_a_teacher_on_a_store_is_named_before_it_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="memory://absent"):
        recipe_of_options(["--recipe", "distil", "--teacher", "memory://absent"], "demo")
    assert capsys.readouterr().err == "looking at memory://absent ...\n"
