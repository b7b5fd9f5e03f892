"""Load of a node while it works: CPUs, memory, disk, network and GPUs, sampled into the run directory.

The names are those of MLflow's system metrics, with the node's host name added.
"""

import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import pyarrow as pa

from pipelines.run.directory import RUN
from pipelines.run.json_lines import Line
from pipelines.run.storage import Storage

SAMPLE_SECONDS = 10.0
# A file is rewritten completely, so that it is never torn; after an hour a new one is started.
SAMPLES_PER_WRITE = 6
SAMPLES_PER_FILE = 360
MIB = 1 << 20
FAILURES = (OSError, ValueError, RuntimeError, pa.ArrowException)


@contextmanager
def system_log(run: Storage, folder: str) -> Iterator[None]:
    """Sample this node during the block, into files in ``folder``."""
    ended = threading.Event()
    thread = threading.Thread(target=_follow, args=(run.impatient(), folder, ended), name="system_log", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(SAMPLE_SECONDS)


def _follow(run: Storage, folder: str, ended: threading.Event) -> None:
    host = socket.gethostname()
    received = psutil.net_io_counters()
    psutil.cpu_percent()  # the first value is meaningless
    lines: list[Line] = []
    name = ""
    while not ended.wait(SAMPLE_SECONDS):
        with suppress(*FAILURES):  # a failure of the store or a GPU only loses a sample
            lines.append(_sample(run, host, received))
        if not lines:
            continue
        name = name or f"{folder}/{host}/{lines[0]['time_ms']}.jsonl"
        if len(lines) % SAMPLES_PER_WRITE == 0:
            _write(run, name, lines)
        if len(lines) == SAMPLES_PER_FILE:
            lines, name = [], ""
    if lines:
        _write(run, name, lines)


def _write(run: Storage, name: str, lines: list[Line]) -> None:
    with suppress(*FAILURES):
        if not run.exists(RUN):
            return  # do not recreate a run directory that was removed
        run.write_json_lines(name, lines)


def _sample(run: Storage, host: str, since: Any) -> Line:
    memory, network = psutil.virtual_memory(), psutil.net_io_counters()
    disk = shutil.disk_usage(run.root if run.is_local else tempfile.gettempdir())  # of a remote run, copies are there
    values = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / MIB,
        "system_memory_usage_percentage": memory.percent,
        "disk_usage_percentage": 100 * disk.used / disk.total,
        "network_receive_megabytes": (network.bytes_recv - since.bytes_recv) / MIB,
        "network_transmit_megabytes": (network.bytes_sent - since.bytes_sent) / MIB,
        **_gpus(),
    }
    return {"time_ms": int(time.time() * 1000), **{f"system/{host}/{name}": value for name, value in values.items()}}


def _gpus() -> dict[str, float]:
    """Return the memory of each GPU if this process uses GPUs; querying unused ones would take memory on them."""
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return {}
    values = {}
    for gpu in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(gpu)
        values[f"gpu_{gpu}_memory_usage_megabytes"] = (total - free) / MIB
        values[f"gpu_{gpu}_memory_usage_percentage"] = 100 * (total - free) / total
    return values
