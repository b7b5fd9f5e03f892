"""Memory of a process and all its descendants over time, by their roles."""

import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import psutil

# Words in the command lines of processes, and the roles they stand for.
ROLES = {
    "RayTrainWorker": "training worker",
    "TrainController": "controller of a replica",
    "fit_replica": "controller of a replica",
    "redict": "predictor",
    "dashboard": "Ray's dashboard",  # before the next: its processes are forked as well
    "forkserver": "loader process",
    "/raylet/raylet": "Ray's raylet",
    "gcs_server": "Ray's head (GCS)",
    "ray::": "other Ray worker",
    "train_ensemble": "driver",
    "imagenet_size": "driver",
}
OTHER = "other"
# Processes with fewer samples are left out of the table.
LEAST_SAMPLES = 8


class MemoryWatch:
    """Samples the proportional set size (PSS) of processes during a block; pages shared by n count as an nth each."""

    def __init__(self, pid: int, interval_seconds: float = 2.0) -> None:
        self._root, self._interval_seconds = pid, interval_seconds
        self.samples: dict[str, dict[int, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
        self.most_mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._interval_seconds):
            try:
                root = psutil.Process(self._root)
                family = [root, *root.children(recursive=True)]
            except psutil.Error:
                return
            now, total_mb = time.monotonic(), 0.0
            for process in family:
                try:
                    role, megabytes = _role(process), pss_mb(process.pid)
                except (psutil.Error, OSError):  # it has ended
                    continue
                total_mb += megabytes
                self.samples[role][process.pid].append((now, megabytes))
            self.most_mb = max(self.most_mb, total_mb)

    def lines(self) -> list[str]:
        """Return a table: the processes of each role, their memory, and its growth near the end."""
        rows = ["| process | number | MB at most | MB on average | growth |", "| --- |" + " ---: |" * 4]
        for role, processes in sorted(self.samples.items()):
            lasting = [samples for samples in processes.values() if len(samples) >= LEAST_SAMPLES]
            if not lasting:
                continue
            megabytes = [one for samples in lasting for _, one in samples]
            growth = statistics.median(_growth([one for _, one in samples]) for samples in lasting)
            rows.append(
                f"| {role} | {len(lasting)} | {max(megabytes):.0f} | {statistics.mean(megabytes):.0f} | {growth:.2f} |"
            )
        return [*rows, f"all together at most {self.most_mb:.0f} MB"]


def _growth(megabytes: Sequence[float]) -> float:
    """Return the peak of the last quarter as a multiple of that of the quarter before; start-up is left out."""
    quarter = len(megabytes) // 4
    return max(megabytes[-quarter:]) / max(megabytes[-2 * quarter : -quarter])


def _role(process: psutil.Process) -> str:
    words = " ".join(process.cmdline())
    return next((role for word, role in ROLES.items() if word in words), OTHER)


def pss_mb(pid: int) -> float:
    """Return the proportional set size of a process in MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1000
    raise OSError(f"process {pid} has no PSS")
