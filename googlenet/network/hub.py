"""Files of the Hugging Face Hub by name: ``hf://[datasets/]OWNER/REPO[@REVISION][/FILE]``. Free of PyTorch.

Files land in the cache of huggingface_hub, and come from it without a network. The environment variables of that
library apply: HF_ENDPOINT (read at each call), HF_TOKEN, HF_HUB_CACHE and HF_HUB_OFFLINE.
"""

import glob
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from googlenet.network.arithmetic import first_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi, HfFileSystem, HfUri

HUB_PREFIX = "hf://"
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"
NOT_PERMITTED = (401, 403)
# Pages of the Hub in a browser. Addresses with /resolve/ are those of files.
_PAGE = re.compile(
    r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<repository>(?:datasets/)?[^/?#]+/[^/?#]+)"
    r"(?:/(?:tree|blob|raw)/(?P<revision>[^/?#]+)(?P<path>/[^?#]*)?)?/?(?:[?#].*)?"
)


class HubError(ValueError):
    """A name on the Hub cannot be read or written; the message is one line with the name, the cause and a fix."""


def is_hub_name(name: str) -> bool:
    """Tell whether ``name`` is that of a repository or file on the Hub."""
    return name.startswith(HUB_PREFIX)


def name_of_page(address: str) -> str:
    """Return the name of what a page of the Hub shows in a browser; empty for any other address."""
    if not (page := _PAGE.fullmatch(address)):
        return ""
    revision = f"@{page['revision']}" if page["revision"] not in (None, "main") else ""
    return f"{HUB_PREFIX}{page['repository']}{revision}{(page['path'] or '').rstrip('/')}"


def parse_hub_name(name: str) -> "HfUri":
    """Return the parts of ``name``: ``type`` ('model', 'dataset'), ``id``, ``revision`` and ``path_in_repo``.

    Raises:
        HubError: it is no such name.
    """
    from huggingface_hub import parse_hf_uri
    from huggingface_hub.errors import HfUriError

    try:
        uri: HfUri = parse_hf_uri(name)
    except HfUriError as error:
        expected = f"{HUB_PREFIX}OWNER/REPO[@REVISION][/FILE], or {HUB_PREFIX}datasets/OWNER/REPO[@REVISION][/FILE]"
        raise HubError(f"{name}: {error.msg.strip()} Expected {expected}") from error
    return uri


def fetch_file(name: str) -> Path:
    """Download the file that ``name`` names, unless it is in the cache; return its path there.

    Raises:
        HubError: ``name`` names no file, or the file cannot be had.
    """
    uri = parse_hub_name(name)
    if not uri.path_in_repo:
        raise HubError(f"{name}: this is a repository; name a file in it: {name}/FILE")
    path: Path = fetch_snapshot(name, [glob.escape(uri.path_in_repo)]) / uri.path_in_repo
    if not path.is_file():
        raise HubError(f"{name}: {uri.id} has no file {uri.path_in_repo}{_at(uri)}")
    return path


def fetch_snapshot(name: str, patterns: Sequence[str] | None = None) -> Path:
    """Download the files of the repository of ``name`` that match one of ``patterns``; return the root of its snapshot.

    Args:
        name: name of a repository, or of a file in it.
        patterns: shell patterns of paths in the repository, such as ``*.safetensors``; None takes every file.

    Raises:
        HubError: the repository cannot be had.
    """
    from huggingface_hub import snapshot_download

    # The library's warnings repeat what our error says, one line for each of its retries.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    uri = parse_hub_name(name)
    with hub_errors(name):
        root = snapshot_download(
            uri.id,
            repo_type=uri.type,
            revision=uri.revision,
            endpoint=hub_endpoint(),
            allow_patterns=None if patterns is None else list(patterns),
            tqdm_class=_bars_on_terminals(),
        )
    return Path(root)


def _bars_on_terminals() -> Any:
    """Return the class of the library's progress bars; it shows one of its own even where there is no terminal."""
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{"disable": None, **kwargs})

    return Bar


def hub_api() -> "HfApi":
    """Return the library's client for the Hub's other requests. Use it inside :func:`hub_errors`."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=hub_endpoint())


def hub_filesystem() -> "HfFileSystem":
    """Return the Hub as a filesystem of fsspec: files are read where they lie. Use it inside :func:`hub_errors`."""
    from huggingface_hub import HfFileSystem

    return HfFileSystem(endpoint=hub_endpoint())


def hub_endpoint() -> str:
    """Return the address of the Hub."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


@contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Turn any failure of huggingface_hub inside the block into a :class:`HubError` about ``name``."""
    from huggingface_hub.errors import EntryNotFoundError, HTTPError, OfflineModeIsEnabled

    try:
        yield
    except (EntryNotFoundError, HTTPError, OfflineModeIsEnabled) as error:
        _refuse(name, error)


def _refuse(name: str, error: Exception) -> NoReturn:
    from huggingface_hub import errors

    uri, hub = parse_hub_name(name), hub_endpoint()
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        cause = error.__cause__  # what the library met before it looked into its cache
    else:
        cause = error
    if isinstance(cause, errors.GatedRepoError):
        page = f"{hub}/{uri.id}" if uri.type == "model" else f"{hub}/{uri.type}s/{uri.id}"
        reason = f"{uri.id} asks for consent: accept its terms at {page}, then log in with `hf auth login`"
    elif isinstance(cause, errors.RepositoryNotFoundError):
        reason = f"no repository {uri.id} at {hub} ({uri.type}): check the name; for a private one {LOGIN}"
    elif isinstance(cause, errors.RevisionNotFoundError):
        slash = " (a / in its name is written %2F)" if uri.path_in_repo else ""
        reason = f"{uri.id} has no revision {uri.revision}: give a branch, tag or commit of it{slash}"
    elif isinstance(cause, errors.OfflineModeIsEnabled):
        reason = "it is not in the cache, and HF_HUB_OFFLINE forbids downloading it: unset HF_HUB_OFFLINE"
    elif isinstance(cause, errors.RemoteEntryNotFoundError):
        reason = f"{uri.id} has no such file{_at(uri)}"
    elif isinstance(cause, errors.HfHubHTTPError) and cause.response.status_code in NOT_PERMITTED:
        status = cause.response.status_code
        reason = f"{hub} does not permit it (status {status}); use a token that has the permission: {LOGIN}"
    elif isinstance(cause, errors.HfHubHTTPError):
        reason = f"{hub} answered with status {cause.response.status_code}: try later"
    else:
        is_cached, by_hand = "", ""
        if isinstance(error, errors.LocalEntryNotFoundError):
            is_cached, by_hand = ", and the cache does not have it", ", or fetch it by other means and give its path"
        reason = f"{hub} cannot be reached ({first_line(cause)}){is_cached}: check the network{by_hand}"
    raise HubError(f"{name}: {reason}") from error


def _at(uri: "HfUri") -> str:
    return f" at revision {uri.revision}" if uri.revision else ""
