"""The line before an object store is asked about a run directory."""

import pytest

from pipelines.job.run_option import run_at


@pytest.mark.parametrize("uri", ["s3://key:topsecret@bucket/run", "https://host/run?signature=topsecret"])
def test_a_secret_in_an_address_is_not_printed(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_at(uri)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err in ("looking at s3://bucket/run ...\n", "looking at https://host/run ...\n")
