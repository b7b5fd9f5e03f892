"""The C allocator's settings for processes that run networks."""

import ctypes
import platform

# mallopt's parameters, from malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
NEVER_TRIM = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keep freed memory for the next activations instead of returning it to the system; whether that was possible.

    glibc gives large blocks back at once, and the system hands them out again page by page: at 224 px that took more
    than half of the time of a forward pass in batches of 144 (benchmarks/allocator.py). Only glibc can be told.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, NEVER_TRIM))
