"""Places of files as users write them: paths and URIs."""

import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from pipelines.errors import UserError

UNPACK = "unpack it, and specify the folder with its content"
WITH_ONE_SLASH = re.compile(r"(file|https?|hf|s3|gs|gcs|abfss?|hdfs|memory):/(?!/)")


def without_file_scheme(uri: str) -> str:
    """Return the path that a URI of a file stands for; any other URI or path as it is.

    Raises:
        UserError: it names another machine.
    """
    if not uri.startswith("file://"):
        return uri
    path = uri.removeprefix("file://")
    if not path.startswith(("/", "localhost/")):
        raise UserError(f"{uri} is on the machine {path.partition('/')[0]}; for a file on this one, write file:///PATH")
    return os.fsdecode(unquote_to_bytes(path.removeprefix("localhost") if path.startswith("localhost/") else path))


def local_path(path: str) -> Path:
    """Return a path as a user gives it, with ``~`` or as ``file:///PATH``, in full.

    Links stay: that of a pipe, as ``/dev/stdin``, leads to a name that cannot be opened.

    Raises:
        UserError: it is of a user that does not exist, or a URI with one slash.
    """
    _refuse_one_slash(path)
    try:
        return Path(without_file_scheme(path)).expanduser().absolute()
    except RuntimeError as error:
        raise UserError(f"{path} cannot be used: {error}") from error


def shown(place: str) -> str:
    """Return a path or URI for a message: without a user, a password and options, which may be secrets.

    What stands before the machine of ``abfs`` is a container, and is shown.
    """
    scheme, divided, rest = place.partition("://")
    if not divided:
        return place
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in rest and "@" not in host and re.search(r":(?!\d*$)", host):  # a secret with a slash that is not quoted
        rest = rest.rpartition("@")[2]
    host, slash, path = rest.partition("?")[0].partition("/")
    user, at, machine = host.rpartition("@")
    container = f"{user.partition(':')[0]}{at}" if scheme in ("abfs", "abfss") else ""
    return f"{scheme}://{container}{machine}{slash}{path}"


def root_of(uri: str) -> str:
    """Return an absolute path without links, or a URI, without a slash at its end.

    A link to a file without an ending, as in the caches of hubs, keeps its own name.

    Raises:
        UserError: it leads nowhere.
    """
    _refuse_one_slash(uri)
    try:
        if "://" not in uri:
            path = Path(uri).expanduser()
            target = path.resolve()
            if path.suffix and not target.suffix and os.path.isfile(target):  # noqa: PTH113 - it raises no errors
                return str(path.parent.resolve() / path.name)
            return str(target)
        urlsplit(uri)
    except (ValueError, RuntimeError) as error:  # a bracket without its other one; a link that leads to itself
        raise UserError(f"{shown(uri)} cannot be used: {error}") from error
    return uri.rstrip("/")


def _refuse_one_slash(uri: str) -> None:
    if scheme := WITH_ONE_SLASH.match(uri):
        raise UserError(f"{uri.partition('?')[0]} needs two slashes after {scheme[1]}: (pathlib removes one of them)")
