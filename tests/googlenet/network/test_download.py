"""Downloads from loopback: whole, wrong, cut off and resumed, not there; the file of the right digest or one error."""

import hashlib
import io
import resource
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from googlenet.network.download import DownloadError, PublishedFile, fetch
from tests.file_server import FileServer, file_server

DATA = bytes(range(256)) * 9 + b"the end"
DIGEST = hashlib.sha256(DATA).hexdigest()
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server(DATA) as files:
        yield files


def published(*addresses: str, size_bytes: int | None = len(DATA)) -> PublishedFile:
    return PublishedFile("net.bin", tuple(f"{address}/net.bin" for address in addresses), DIGEST, size_bytes)


def kept(folder: Path) -> bytes:
    """What the folder keeps of an incomplete download; nothing else may lie there."""
    [path] = folder.iterdir()
    assert path.name == "net.bin.partial"
    return path.read_bytes()


def test_a_file_is_downloaded_once(server: FileServer, tmp_path: Path) -> None:
    file = published(f"{server.address}/whole")
    path = fetch(file, tmp_path / "new" / "cache")
    assert path == tmp_path / "new" / "cache" / "net.bin"
    assert path.read_bytes() == DATA
    assert list(path.parent.iterdir()) == [path]
    assert fetch(file, path.parent) == path
    assert len(server.asked) == 1


@pytest.mark.parametrize("size_bytes", [len(DATA), None])
def test_a_download_that_is_cut_off_is_resumed_where_it_ended(
    server: FileServer, tmp_path: Path, size_bytes: int | None
) -> None:
    path = fetch(published(f"{server.address}/cut", size_bytes=size_bytes), tmp_path)
    assert path.read_bytes() == DATA
    assert server.asked == [("/cut/net.bin", first) for first in (0, 1000, 2000)]


def test_the_next_command_goes_on_where_the_last_one_was_killed(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "net.bin.partial").write_bytes(DATA[:700])
    assert fetch(published(f"{server.address}/whole"), tmp_path).read_bytes() == DATA
    assert server.asked == [("/whole/net.bin", 700)]


@pytest.mark.parametrize("beginning", [DATA[:700], DATA, DATA + b"of another file", b"of another file"])
@pytest.mark.parametrize("kind", ["whole", "from-the-start", "all-as-a-part"])
def test_whatever_was_left_the_file_is_right_in_the_end(
    server: FileServer, tmp_path: Path, kind: str, beginning: bytes
) -> None:
    (tmp_path / "net.bin.partial").write_bytes(beginning)
    assert fetch(published(f"{server.address}/{kind}"), tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("first", ["none", "wrong", "page"])
def test_the_next_address_is_tried(server: FileServer, tmp_path: Path, first: str) -> None:
    file = published(f"{server.address}/{first}", NOBODY, f"{server.address}/whole")
    assert fetch(file, tmp_path).read_bytes() == DATA


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("none", "status 404 Not Found"),
        ("wrong", f"SHA-256 [0-9a-f]{{64}}, expected {DIGEST}"),
        ("page", "a file of 43 bytes, expected 2,311"),
        ("loop", "status 302 .* infinite loop. The last"),
        ("no-length", "the connection ended after 100 of 2,311 bytes; the same"),
    ],
)
def test_where_no_address_has_the_file_one_line_says_why_and_where_to_put_it(
    server: FileServer, tmp_path: Path, kind: str, reason: str
) -> None:
    with pytest.raises(DownloadError, match=rf"{server.address}/{kind}/net.bin: {reason}") as error:
        fetch(published(f"{server.address}/{kind}"), tmp_path)
    assert f"net.bin (2,311 bytes, SHA-256 {DIGEST}) by other means and put it at {tmp_path}/net.bin" in str(
        error.value
    )
    assert "\n" not in str(error.value)
    assert kept(tmp_path) == (DATA[:100] if kind == "no-length" else b"")


def test_a_wrong_file_of_unknown_size_is_refused_by_the_first_digits_of_its_digest(
    server: FileServer, tmp_path: Path
) -> None:
    file = PublishedFile("net.bin", (f"{server.address}/wrong/net.bin",), DIGEST[:8])
    with pytest.raises(DownloadError, match=f"expected {DIGEST[:8]}"):
        fetch(file, tmp_path)


@pytest.mark.parametrize(
    ("kind", "reason"), [("", "Connection refused"), ("page", "a file of 43 bytes"), ("none", "404"), ("empty", "416")]
)
def test_where_the_file_cannot_be_had_what_has_arrived_is_kept(
    server: FileServer, tmp_path: Path, kind: str, reason: str
) -> None:
    (tmp_path / "net.bin.partial").write_bytes(DATA[:700])
    expected = rf"{reason}.*; the same command continues with what has arrived\).* by other means"
    with pytest.raises(DownloadError, match=expected):
        fetch(published(f"{server.address}/{kind}" if kind else NOBODY), tmp_path)
    assert kept(tmp_path) == DATA[:700]


def test_a_file_that_was_put_there_by_hand_needs_no_network(tmp_path: Path) -> None:
    (tmp_path / "net.bin").write_bytes(DATA)
    assert fetch(published(NOBODY), tmp_path) == tmp_path / "net.bin"


@pytest.mark.parametrize("content", [DATA[:-1], DATA[:-1] + b"D"])
def test_another_file_in_its_place_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.bin").write_bytes(content)
    with pytest.raises(DownloadError, match=rf"{tmp_path}/net.bin is another file \(.*expected.*\): delete it"):
        fetch(published(NOBODY), tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=rf"{tmp_path}/file/cache cannot be read or written .*: set TORCH_HOME"):
        fetch(published(NOBODY), tmp_path / "file" / "cache")


def test_a_full_disk_is_not_blamed_on_the_network(server: FileServer, tmp_path: Path) -> None:
    """As with a quota: for a moment this process may not write beyond byte 1,000 of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(DownloadError) as error:
            fetch(published(f"{server.address}/whole"), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (
        str(error.value) == f"{tmp_path} cannot be read or written (File too large): set TORCH_HOME to another folder"
    )


def test_a_proxy_is_named_without_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://me:secret@127.0.0.1:9")
    with pytest.raises(DownloadError, match="check the network and the proxy in https_proxy, or fetch") as error:
        fetch(published(NOBODY), tmp_path)
    assert "secret" not in str(error.value)


def test_two_at_once_download_one_file(server: FileServer, tmp_path: Path) -> None:
    file = published(f"{server.address}/cut")
    with ThreadPoolExecutor(4) as threads:
        paths = [each.result() for each in [threads.submit(fetch, file, tmp_path) for _ in range(4)]]
    assert {path.read_bytes() for path in paths} == {DATA}
    assert [first for _, first in server.asked] == [0, 1000, 2000]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_shows_the_progress(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stderr", shown)
    fetch(published(f"{server.address}/whole"), tmp_path)
    assert ("net.bin: 100%" in shown.getvalue()) == is_terminal
    assert bool(shown.getvalue()) == is_terminal
