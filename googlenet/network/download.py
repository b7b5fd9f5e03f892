"""Download of a published file: resumed after an interruption, checked by its digest, complete under its final name."""

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

TIMEOUT_SECONDS = 30.0
CHUNK_BYTES = 1 << 18
SHA256_DIGITS = 64
PARTIAL_SUFFIX = ".partial"
UNUSABLE = "{} cannot be read or written ({}): set TORCH_HOME to another folder"
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = 206, 416


class DownloadError(ValueError):
    """A published file cannot be had; the message is one line with the causes and a fix."""


class _DiskError(Exception):
    """What has arrived cannot be written; the network is not at fault."""


@dataclass(frozen=True)
class PublishedFile:
    """A file that others serve.

    Attributes:
        name: its name in the cache.
        addresses: where it is, tried in this order.
        sha256: its SHA-256 in hexadecimal digits, or the first ones of it.
        size_bytes: its size, if known.
    """

    name: str
    addresses: tuple[str, ...]
    sha256: str
    size_bytes: int | None = None

    @property
    def description(self) -> str:
        """What identifies the file, wherever it comes from."""
        size = f"{self.size_bytes:,} bytes, " if self.size_bytes else ""
        digits = self.sha256 if len(self.sha256) == SHA256_DIGITS else f"{self.sha256}..."
        return f"{self.name} ({size}SHA-256 {digits})"


def fetch(file: PublishedFile, folder: Path) -> Path:
    """Return the path of ``file`` in ``folder``, after a download if it is not there.

    Raises:
        DownloadError: no address serves the file, the folder cannot be written, or another file is in its place.
    """
    path = folder / file.name
    try:
        if path.exists():
            if reason := _wrong(path, file):
                raise DownloadError(f"{path} is another file ({reason}): delete it to download {file.name} again")
            return path
        folder.mkdir(parents=True, exist_ok=True)
        with _exclusively_open(folder / f"{file.name}{PARTIAL_SUFFIX}") as partial:
            if not path.exists():  # else another process has fetched it meanwhile
                _fetch(file, partial, path)
    except _DiskError as error:
        raise DownloadError(UNUSABLE.format(folder, error)) from error
    except OSError as error:
        raise DownloadError(UNUSABLE.format(error.filename or folder, error.strerror)) from error
    return path


@contextmanager
def _exclusively_open(partial: Path) -> Iterator[BinaryIO]:
    """Open the incomplete file; a second process waits here until the first is done."""
    import fcntl

    with partial.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield stream


def _fetch(file: PublishedFile, partial: BinaryIO, path: Path) -> None:
    failed: dict[str, list[str]] = {}
    for address in file.addresses:
        reason = _complete(address, file, partial)
        if not reason:
            Path(partial.name).replace(path)
            return
        failed.setdefault(" ".join(reason.split()), []).append(address)
    kept = "; the same command continues with what has arrived" if partial.seek(0, 2) else ""
    reasons = "; ".join(f"{', '.join(addresses)}: {reason}" for reason, addresses in failed.items())
    raise DownloadError(
        f"{file.name} cannot be downloaded ({reasons}{kept}): check {_network()}, or fetch "
        f"{file.description} by other means and put it at {path}"
    )


def _network() -> str:
    """Return what a download goes through; a proxy's address is not shown, since it may hold a password."""
    proxies = [f"{scheme}_proxy" for scheme in ("http", "https") if scheme in urllib.request.getproxies()]
    return f"the network and the proxy in {' and '.join(proxies)}" if proxies else "the network"


def _complete(address: str, file: PublishedFile, partial: BinaryIO) -> str:
    """Download what is missing from one address; return why the file is not there, empty if it is.

    If what was left of an earlier download turns out to belong to another file, it begins anew.
    """
    is_resumed = partial.seek(0, 2) > 0
    if reason := _download(address, file, partial):
        return reason
    if not (reason := _wrong(Path(partial.name), file)):
        return ""
    partial.truncate(0)
    return _complete(address, file, partial) if is_resumed else reason


def _download(address: str, file: PublishedFile, partial: BinaryIO) -> str:
    """Append what is missing to ``partial``; return why it is incomplete, empty if it is complete."""
    while True:
        before = partial.seek(0, 2)
        try:
            reason = _append(address, file, partial)
        except urllib.error.HTTPError as error:
            reason = f"status {error.code} {error.reason}"
            if error.code == RANGE_NOT_SATISFIABLE and before >= (file.size_bytes or 1):
                partial.truncate(0)  # it does not end within the file, so it belongs to another one
                continue
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", error)
            reason = getattr(cause, "strerror", None) or str(cause) or type(error).__name__
        with _disk_errors():
            partial.flush()
        if not reason or partial.tell() <= before:
            return reason


def _append(address: str, file: PublishedFile, partial: BinaryIO) -> str:
    from huggingface_hub.utils import tqdm

    arrived = partial.tell()
    request = urllib.request.Request(address, headers={"Range": f"bytes={arrived}-"} if arrived else {})  # noqa: S310
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - addresses of a registry
        start = _first_byte(response, arrived)
        if start > arrived:
            return f"a part from byte {start:,} on, asked for byte {arrived:,}"
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else file.size_bytes
        if file.size_bytes and total != file.size_bytes:
            return f"a file of {total:,} bytes, expected {file.size_bytes:,}"
        partial.truncate(start)
        partial.seek(start)
        bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=file.name, disable=None)
        with bar:  # shown on a terminal only
            while chunk := response.read(CHUNK_BYTES):
                with _disk_errors():
                    partial.write(chunk)
                bar.update(len(chunk))
    arrived = partial.tell()
    return "" if total in (None, arrived) else f"the connection ended after {arrived:,} of {total:,} bytes"


def _first_byte(response: Any, asked: int) -> int:
    """Return where the part of the file in ``response`` begins; not every server can start where it was asked to."""
    if response.status != PARTIAL_CONTENT:
        return 0
    sent = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(sent[1]) if sent else asked


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _DiskError(error.strerror) from error


def _wrong(path: Path, file: PublishedFile) -> str:
    """Return how the file at ``path`` differs from ``file``; empty if it is the one."""
    size = path.stat().st_size
    if file.size_bytes and size != file.size_bytes:
        return f"{size:,} bytes, expected {file.size_bytes:,}"
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return "" if digest.startswith(file.sha256) else f"SHA-256 {digest}, expected {file.sha256}"
