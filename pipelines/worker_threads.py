"""Threads of a worker."""

import os


def use_own_cpus() -> None:
    """As many threads as CPUs were reserved for this Ray worker, so that replicas on one node do not fight."""
    import cv2
    import torch

    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    cv2.setNumThreads(0)
