"""Filesystems behind URIs: object stores with long retries and readable errors.

Credentials come from where each cloud's own tools look: the environment, configuration files, the machine's role.
"""

import os
import re
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import SplitResult, parse_qs, quote, urlencode, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from pipelines.errors import UserError
from pipelines.run.places import UNPACK, shown
from pipelines.run.published_files import is_published, open_published

# Pauses between attempts double from 25 ms to 51 seconds: a server may be unreachable for a minute and a half.
S3_ATTEMPTS, GCS_RETRY_SECONDS = 12, "90"
# For operations that should fail at once if the store is unreachable: about a third of a second, and a second.
FEW_S3_ATTEMPTS, FEW_GCS_RETRY_SECONDS = 4, "1"
OPTIONS = {
    "s3": ("region", "endpoint_override", "scheme"),
    "gs": ("scheme", "endpoint_override", "retry_limit_seconds"),
    "abfs": ("enable_tls", "blob_storage_authority", "dfs_storage_authority", "client_id"),
}
# Schemes of fsspec for files that no node of a cluster would find, or nobody has tried, with what to do instead.
MOUNT = "mount it as a folder, or copy the files to one"
INSTEAD = {
    **dict.fromkeys(("7z", "libarchive", "rar", "tar", "zip"), UNPACK),
    **dict.fromkeys(("ftp", "ftps", "scp", "sftp", "smb", "ssh", "webdav"), MOUNT),
}
# Beginnings of the error messages of the stores' libraries, which give no error numbers.
STORE_ERROR = re.compile(r"AWS Error|google::cloud|Azure::|Azure Error|Bucket '[^']*' not found")
CREDENTIALS = "check the credentials (environment, configuration file or role of the machine) and their permissions"
FIXES = (
    (r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE|EXPIRED|InvalidAccessKeyId|ExpiredToken", CREDENTIALS),
    (r"HTTP status 40[13]|UNAUTHENTICATED|PERMISSION_DENIED|AuthenticationException|AuthorizationFailure", CREDENTIALS),
    (r"NO_SUCH_BUCKET|Bucket '[^']*' not found|ContainerNotFound", "create the bucket, or use another"),
    (r"NETWORK_CONNECTION|UNAVAILABLE", "check the address, and that the store is reachable from this machine"),
)  # fmt: skip


def open_filesystem(uri: str, *, is_patient: bool = True) -> tuple[pafs.FileSystem, str]:
    """Return the filesystem behind a URI, and the path in it.

    One that ``is_patient`` bears with a store that is unreachable for a minute and a half; any other fails at once.

    Raises:
        UserError: the scheme is unknown, or the URI contains a secret or unknown options.
    """
    parts = urlsplit(uri)
    scheme = {"gcs": "gs", "abfss": "abfs"}.get(parts.scheme, parts.scheme)
    place = shown(uri).partition("#")[0]
    _refuse(parts, place)
    if is_published(uri):
        return open_published(uri)
    if scheme not in OPTIONS:
        return _open_by_fsspec(uri, place)
    given = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    if unknown := sorted(set(given) - set(OPTIONS[scheme])):
        raise UserError(f"{place}: unknown option {', '.join(unknown)}; the options are {', '.join(OPTIONS[scheme])}")
    if empty := [name for name, value in given.items() if not value]:
        raise UserError(f"{place}: {empty[0]} is empty; is a shell variable unset?")
    if scheme == "s3":
        return _open_s3(place, parts.netloc, parts.path, given, S3_ATTEMPTS if is_patient else FEW_S3_ATTEMPTS)
    if scheme == "gs":
        given = {"retry_limit_seconds": GCS_RETRY_SECONDS if is_patient else FEW_GCS_RETRY_SECONDS, **given}
    # Arrow decodes the path, which is meant as it is, as on S3: names may have spaces, brackets and percent signs.
    address = f"{parts.scheme}://{parts.netloc}{quote(parts.path)}?{urlencode(given)}"
    try:
        return cast(tuple[pafs.FileSystem, str], pafs.FileSystem.from_uri(address))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UserError(f"{place} cannot be used: {error}") from error


def _refuse(parts: SplitResult, place: str) -> None:
    """Refuse what cannot be meant, or not be used, whatever the options.

    Raises:
        UserError: the place has a password, a fragment, or a scheme that cannot be used.
    """
    if parts.password:
        raise UserError(f"{place} contains a secret, which would be written to files; set it in the environment")
    if parts.fragment:
        raise UserError(f"{place}#{parts.fragment}: a name with # cannot be used")
    if instead := INSTEAD.get(parts.scheme):
        raise UserError(f"{place}: {parts.scheme}:// cannot be used; {instead}")


def _open_s3(
    place: str, bucket: str, path: str, given: Mapping[str, str], attempts: int
) -> tuple[pafs.FileSystem, str]:
    if not bucket:
        raise UserError(f"{place} names no bucket")
    endpoint = given.get("endpoint_override") or os.environ.get("AWS_ENDPOINT_URL_S3", "")
    endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL", "")
    region = given.get("region") or os.environ.get("AWS_REGION", "") or os.environ.get("AWS_DEFAULT_REGION", "")
    if not region:
        region = "us-east-1" if endpoint else pafs.resolve_s3_region(bucket)
    options = {"region": region, "endpoint_override": endpoint, "scheme": given.get("scheme", "")}
    return _PatientS3.connect(options, attempts), f"{bucket}{path}".rstrip("/")


class _PatientS3(pafs.S3FileSystem):  # type: ignore[misc]  # pyarrow has no types
    """S3 with retries for longer than Arrow's six seconds, also after it has been sent to another process."""

    @classmethod
    def connect(cls, options: Mapping[str, Any], attempts: int = S3_ATTEMPTS) -> "_PatientS3":
        given = {name: value for name, value in options.items() if value}
        return cls(**given, retry_strategy=pafs.AwsDefaultS3RetryStrategy(max_attempts=attempts))

    def __reduce__(self) -> tuple[Any, ...]:
        return _PatientS3.connect, (super().__reduce__()[1][0],)


def _open_by_fsspec(uri: str, place: str) -> tuple[pafs.FileSystem, str]:
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError, OSError) as error:
        raise UserError(f"{place}: {error}") from error
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), path


def store_failure(text: str) -> str | None:
    """Return an object store's error in one line, with advice on a fix; None if ``text`` is no such error."""
    if not STORE_ERROR.search(text):
        return None
    reason = " ".join(text.split())
    fix = next((fix for signs, fix in FIXES if re.search(signs, reason)), "")
    return f"{reason}; {fix}" if fix else reason
