"""Failures of disks, servers and shards, recognised behind what libraries make of them."""

import errno
import re

import pyarrow as pa

from googlenet.images.records import RecordsError
from pipelines.run.object_store import store_failure

WRAPPED = re.compile(r"^(?:\w+\.)*(\w+Error): ((?:\[Errno (\d+)\])?.*)$", re.MULTILINE)
# What a disk or a server answers when it cannot; anything else may be a fault of this program.
STORAGE_ERRNOS = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES,
    errno.ECONNREFUSED, errno.ETIMEDOUT, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENOTCONN, errno.ENODEV,
}  # fmt: skip

STORE_FAILURES = (OSError, ValueError, pa.ArrowException)


def storage_failure(error: BaseException) -> str | None:
    """The failure of a disk, server or shard that is behind ``error``, in one line; None if it is something else.

    Ray wraps what a worker raised, sometimes more than once.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, RecordsError) or (isinstance(current, OSError) and current.errno in STORAGE_ERRNOS):
            return (str(current).strip().splitlines() or [type(current).__name__])[-1]
        if isinstance(current, OSError | pa.ArrowException) and (answer := store_failure(str(current))):
            return answer
        current = getattr(current, "cause", None) or current.__cause__
    # What Ray Data wraps comes to the driver as text alone.
    for kind, text, number in WRAPPED.findall(str(error)):
        # Python has classes of its own for some numbers: PermissionError, TimeoutError.
        if kind in ("RecordsError", "ShardDamagedError") or (number and int(number) in STORAGE_ERRNOS):
            return str(text)
        if kind == "OSError" and (answer := store_failure(text)):
            return answer
    return None
