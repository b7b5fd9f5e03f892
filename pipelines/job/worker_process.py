"""Allocator settings and thread counts of processes that run networks, and how many others feed them."""

import os

# glibc returns large blocks to the system at once, and the system hands them out again page by page: at 224 px this
# took more than half of the time of a forward pass in batches of 144 (benchmarks/allocator.py). These settings keep
# freed memory for the next activations. They must be in the environment when a process starts: Ray runs its work in
# threads, and only an allocator with a single arena treats those like the main thread. Other allocators ignore them.
KEEP_FREED_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**62),
}
# Tasks that read, decode and scale images for a predictor: for a GPU more, if there are CPUs for them.
FEEDERS_PER_PREDICTOR = {"cpu": 2, "gpu": 6}


def use_own_cpus() -> None:
    """Use as many threads as CPUs are reserved for this Ray worker, so that replicas on one node do not compete.

    On a GPU, the fastest of cuDNN's algorithms is chosen for each shape, which pays for batches of one size.
    """
    import cv2
    import torch

    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    cv2.setNumThreads(0)
    torch.backends.cudnn.benchmark = True
