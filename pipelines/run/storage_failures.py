"""Failures of disks, servers and shards: found behind wrapped exceptions, and the types that a storage raises."""

import errno
import re

import pyarrow as pa

from googlenet.images.records import RecordsError
from pipelines.run.object_store import store_failure
from pipelines.run.published_files import PublishedFilesError

WRAPPED = re.compile(r"^(?:\w+\.)*(\w+Error): ((?:\[Errno (\d+)\])?.*)$", re.MULTILINE)
KNOWN_BY_NAME = ("RecordsError", "ShardDamagedError", "PublishedFilesError")
# Errors of a network, or of an unreachable server or disk.
OUTAGE_ERRNOS = {
    errno.ECONNREFUSED, errno.ECONNRESET, errno.ETIMEDOUT, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN,
    errno.EHOSTUNREACH, errno.ENOTCONN, errno.ENODEV, errno.ESTALE,
}  # fmt: skip
# Errors of a failing disk or server, and of paths as users name them; any other may be a bug in this program.
STORAGE_ERRNOS = OUTAGE_ERRNOS | {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM,
    errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR,
}  # fmt: skip

# Exceptions of a failing storage, for code that continues without it. Of ValueErrors, Arrow's own are among them; any
# other, such as of a text that cannot be encoded, is a bug.
STORE_FAILURES = (OSError, pa.ArrowException)


def storage_failure(error: BaseException) -> str | None:
    """Return the failure of a disk, server or shard behind ``error`` in one line; None if it is something else.

    Ray wraps the exceptions of workers, sometimes more than once.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        is_known = isinstance(current, RecordsError | PublishedFilesError)
        if is_known or (isinstance(current, OSError) and current.errno in STORAGE_ERRNOS):
            return (str(current).strip().splitlines() or [type(current).__name__])[-1]
        if isinstance(current, OSError | pa.ArrowException) and (answer := store_failure(str(current))):
            return answer
        current = getattr(current, "cause", None) or current.__cause__
    # Exceptions wrapped by Ray Data reach the driver as text only.
    for kind, text, number in WRAPPED.findall(str(error)):
        # Python has its own classes for some numbers: PermissionError, TimeoutError.
        if kind in KNOWN_BY_NAME or (number and int(number) in STORAGE_ERRNOS):
            return str(text)
        if kind == "OSError" and (answer := store_failure(text)):
            return answer
    return None


def is_outage(error: BaseException) -> bool:
    """Return whether a store, a server or the network has failed; other errors of reading are those of one file."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    return isinstance(error, OSError) and (error.errno in OUTAGE_ERRNOS or store_failure(str(error)) is not None)
