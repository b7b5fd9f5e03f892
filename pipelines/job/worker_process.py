"""The C allocator's settings for processes that run networks."""

import os

# glibc gives large blocks back to the system at once, and the system hands them out again page by page: at 224 px that
# took more than half of the time of a forward pass in batches of 144 (benchmarks/allocator.py). These settings keep
# freed memory for the next activations. They have to be in the environment when a process starts, since Ray runs its
# work in threads, and only an allocator with a single arena serves those like the main thread. Others than glibc
# ignore them.
KEEP_FREED_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**62),
}


def use_own_cpus() -> None:
    """As many threads as CPUs were reserved for this Ray worker, so that replicas on one node do not fight."""
    import cv2
    import torch

    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    cv2.setNumThreads(0)
