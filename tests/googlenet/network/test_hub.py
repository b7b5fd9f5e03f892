"""Files of a Hub served on loopback: fetched, cached, and refused with one line that names the cause and the fix."""

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from googlenet.network.hub import (
    HubError,
    fetch_file,
    fetch_snapshot,
    hub_api,
    hub_errors,
    hub_filesystem,
    name_of_page,
)
from tests.hub_server import hub_of


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Serve the model ``me/net`` and the data set ``me/pets``; give the list of what was asked."""
    for path in (
        "models/me/net/weights.npz",
        "models/me/net/more/b.txt",
        "models/me/gated/x",
        "datasets/me/pets/a.tar",
    ):
        (tmp_path / "hub" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "hub" / path).write_text(path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with hub_of(tmp_path / "hub") as (address, requests):
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield requests


@pytest.mark.parametrize("name", ["hf://me/net/weights.npz", "hf://me/net@feature%2Fx/weights.npz"])
def test_a_file_is_fetched_once(asked: list[str], name: str, capfd: pytest.CaptureFixture[str]) -> None:
    first, downloads = fetch_file(name), sum(line.startswith("GET /me/net/resolve") for line in asked)
    assert first.read_text() == "models/me/net/weights.npz"
    assert downloads == 1
    assert fetch_file(name) == first
    assert sum(line.startswith("GET /me/net/resolve") for line in asked) == downloads
    assert capfd.readouterr().err == ""  # progress bars are for terminals


def test_of_a_repository_the_files_asked_for_are_fetched(asked: list[str]) -> None:
    root = fetch_snapshot("hf://me/net", ["more/*"])
    assert [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()] == ["more/b.txt"]


def test_a_data_set_is_read_where_it_lies(asked: list[str]) -> None:
    with hub_errors("hf://datasets/me/pets"):
        assert hub_api().list_repo_files("me/pets", repo_type="dataset") == ["a.tar"]
        with hub_filesystem().open("datasets/me/pets/a.tar") as file:
            assert file.read() == b"datasets/me/pets/a.tar"


def test_what_was_fetched_once_needs_no_network(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch_file("hf://me/net/weights.npz")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert fetch_file("hf://me/net/weights.npz") == path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hf://me/net/nothing.npz", "me/net has no file nothing.npz"),
        ("hf://me/net@v9", "name a file in it"),
        ("hf://me/net@new/x/weights.npz", r"no revision new: give a branch, .* \(a / in its name is written %2F\)$"),
        ("hf://me/none/weights.npz", "no repository me/none .* check the name; for a private one log in"),
        ("hf://me/gated/x", "accept its terms at http://127.0.0.1:.*/me/gated, then log in"),
        ("hf://datasets/me/gated/x", "accept its terms at http://127.0.0.1:.*/datasets/me/gated, then log in"),
        ("hf://me/net", "this is a repository; name a file in it: hf://me/net/FILE"),
        ("hf://net", "Expected hf://OWNER/REPO"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(asked: list[str], name: str, reason: str) -> None:
    with pytest.raises(HubError, match=reason) as error:
        fetch_file(name)
    assert str(error.value).startswith(f"{name}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://huggingface.co/me/net", "hf://me/net"),
        ("https://hf.co/datasets/me/pets/", "hf://datasets/me/pets"),
        ("https://huggingface.co/me/net/blob/main/more/b.onnx?x=1", "hf://me/net/more/b.onnx"),
        ("https://huggingface.co/me/net/tree/v1", "hf://me/net@v1"),
        ("https://huggingface.co/me/net/resolve/main/b.onnx", ""),  # a file, which can be read as any other
        ("https://example.com/me/net", ""),
        ("hf://me/net", ""),
    ],
)
def test_a_page_in_a_browser_has_a_name(address: str, name: str) -> None:
    assert name_of_page(address) == name


def test_without_a_network_the_hub_that_cannot_be_reached_is_named(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"hf://me/net/x: http://127.0.0.1:9 cannot be reached \(.*refused\).*network"):
        fetch_file("hf://me/net/x")
    with (
        pytest.raises(HubError, match=r"hf://datasets/me/pets: http://127.0.0.1:9 cannot be reached"),
        hub_errors("hf://datasets/me/pets"),
    ):
        hub_filesystem().ls("datasets/me/pets")
