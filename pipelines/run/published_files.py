"""Data sets published on Hugging Face or on a web server, as read-only filesystems.

Files are read where they lie, by ranges of bytes. HF_ENDPOINT and the token of Hugging Face are looked up in each
process that reads, so nodes need their own, as for object stores. A server that fails is asked six times within about
25 seconds; then one line names the file and the reason.
"""

import time
from collections.abc import Callable
from time import monotonic
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from googlenet.network.hub import HUB_PREFIX, HubError, hub_errors, hub_filesystem, is_hub_name
from pipelines.errors import UserError

WEB_SCHEMES = ("http", "https")
# Those of huggingface_hub, which repeats some of its requests itself.
PAUSES_SECONDS = (1, 2, 4, 8, 8)
# A server that sends nothing for so long is asked again.
SILENCE_SECONDS = 30
# What is read beyond a request: the headers of an archive, one between each two images, share requests.
READ_AHEAD_BYTES = 1 << 20
NOT_THERE = (404, 410)
WORTH_A_RETRY = (408, 429, 500, 502, 503, 504)
NO_PARTS = "its server does not send parts of a file: download it, and specify where it is on this machine"

T = TypeVar("T")


class PublishedFilesError(Exception):
    """A server cannot be read; the message is one line with the file, the reason and a fix.

    It is no OSError: an image that its own server does not deliver is not a bad image.

    Attributes:
        may_pass: whether it is worth trying again.
    """

    def __init__(self, message: str, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass


def patiently(request: Callable[[], T]) -> T:
    """Return the result of ``request``, which is repeated while it fails for a reason that may pass.

    Raises:
        PublishedFilesError: it failed for another reason, or for too long.
    """
    started = monotonic()
    for pause in PAUSES_SECONDS:
        try:
            return request()
        except PublishedFilesError as error:
            # huggingface_hub may have repeated it as often itself.
            if not error.may_pass or monotonic() - started >= sum(PAUSES_SECONDS):
                raise
        time.sleep(pause)
    return request()


def ask_hub(name: str, request: Callable[[], T]) -> T:
    """Return the result of a request to Hugging Face about ``name``.

    Raises:
        PublishedFilesError: it failed.
    """
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils.logging import set_verbosity_error

    set_verbosity_error()  # its warnings, one for each retry, say what the error says in the end
    try:
        with hub_errors(name):
            return request()
    except HubError as error:
        answer = getattr(error.__cause__, "response", None)
        may_pass = isinstance(error.__cause__, HTTPError) if answer is None else answer.status_code in WORTH_A_RETRY
        raise PublishedFilesError(str(error), may_pass) from error


def is_published(uri: str) -> bool:
    """Return whether ``uri`` is on Hugging Face or on a web server."""
    return is_hub_name(uri) or urlsplit(uri).scheme in WEB_SCHEMES


def open_published(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return the read-only filesystem behind ``uri``, and the path in it.

    Raises:
        UserError: the address has a query.
    """
    if is_hub_name(uri):
        return pafs.PyFileSystem(_HubFiles(hub_filesystem())), uri.removeprefix(HUB_PREFIX)
    address, mark, _ = uri.partition("?")
    if mark:  # a signature or a key, often
        raise UserError(f"{address}?...: leave out what follows the ?, often a secret, since it would be kept in files")
    import aiohttp
    import fsspec

    # By default a request of any size must end within five minutes.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE_SECONDS, sock_read=SILENCE_SECONDS)
    filesystem = fsspec.filesystem("https", client_kwargs={"timeout": timeout})
    return pafs.PyFileSystem(_WebFiles(filesystem)), uri


class _PublishedFiles(pafs.FSSpecHandler):  # type: ignore[misc]  # pyarrow has no types
    """Reads through fsspec; failures of the server are named by :meth:`_once`, and nothing can be written."""

    def _once(self, path: str, request: Callable[[], T]) -> T:
        """Return the result of ``request``; raises FileNotFoundError, or PublishedFilesError about ``path``."""
        raise NotImplementedError

    def _ask(self, path: str, request: Callable[[], T]) -> T:
        return patiently(lambda: self._once(path, request))

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        return [self._file_info(path) for path in paths]

    def _file_info(self, path: str) -> pafs.FileInfo:
        try:
            return self._create_file_info(path, self._ask(path, lambda: self.fs.info(path)))
        except FileNotFoundError:
            return pafs.FileInfo(path, pafs.FileType.NotFound)

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        base, depth = selector.base_dir, None if selector.recursive else 1
        try:
            infos = self._ask(base, lambda: self.fs.find(base, maxdepth=depth, withdirs=True, detail=True))
        except FileNotFoundError:
            if selector.allow_not_found:
                return []
            raise
        return [
            self._create_file_info(path, info) for path, info in infos.items() if path.strip("/") != base.strip("/")
        ]

    def open_input_file(self, path: str) -> pa.PythonFile:
        opened = self._ask(path, lambda: self._open(path))
        return pa.PythonFile(_ReadableFile(opened, lambda request: self._ask(path, request)), mode="r")

    def _open(self, path: str) -> Any:
        return self.fs.open(path, block_size=READ_AHEAD_BYTES)

    def open_input_stream(self, path: str) -> pa.PythonFile:
        return self.open_input_file(path)

    def open_output_stream(self, path: str, _metadata: Any) -> NoReturn:
        raise UserError(f"{path} cannot be written: data sets that others publish are read only")

    def create_dir(self, path: str, _recursive: bool) -> None:
        self.open_output_stream(path, None)


class _ReadableFile:
    """A file of fsspec whose reads go through ``ask``."""

    def __init__(self, opened: Any, ask: Callable[[Callable[[], bytes]], bytes]) -> None:
        self._opened, self._ask = opened, ask

    def read(self, size: int = -1) -> bytes:
        position = self._opened.tell()

        def request() -> bytes:
            self._opened.seek(position)
            data: bytes = self._opened.read(size)
            return data

        return self._ask(request)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)


class _HubFiles(_PublishedFiles):
    """Files on Hugging Face."""

    def _once(self, path: str, request: Callable[[], T]) -> T:
        return ask_hub(f"{HUB_PREFIX}{path}", request)


class _WebFiles(_PublishedFiles):
    """Files on a web server. fsspec takes any failure to ask about a file for its absence."""

    def _once(self, path: str, request: Callable[[], T]) -> T:
        import aiohttp

        try:
            return request()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            cause = error.__cause__ if isinstance(error, FileNotFoundError) else error
            if cause is None or getattr(cause, "status", None) in NOT_THERE:
                raise FileNotFoundError(path) from error
            raise PublishedFilesError(f"{path}: {_reason(cause)}", _may_pass(cause)) from error

    def _open(self, path: str) -> Any:
        info = self.fs.info(path)
        if info.get("partial") is False or not info["size"]:
            raise PublishedFilesError(f"{path}: {NO_PARTS if info['size'] else 'it is empty, or of unknown size'}")
        return self.fs.open(path, block_size=READ_AHEAD_BYTES, size=info["size"])


def _may_pass(error: BaseException) -> bool:
    status = getattr(error, "status", None)  # that of an answer; a connection that fails has none
    return status in WORTH_A_RETRY if status is not None else not isinstance(error, ValueError)


def _reason(error: BaseException) -> str:
    status = getattr(error, "status", None)
    if status in (401, 403):
        return f"the server asks for a permission (status {status}): download it, and specify where it is"
    if status is not None:
        return f"the server answers with status {status}; try later"
    if isinstance(error, ValueError):
        return NO_PARTS if "range requests" in str(error) else str(error)
    text = " ".join(str(error).split()) or type(error).__name__
    return f"its server cannot be read ({text}); check the address and the network"
