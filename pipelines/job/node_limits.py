"""CPUs and memory that this process may use: those of the machine, or fewer under taskset, in a container or cgroup."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipelines.job.console import count, size

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class NodeLimits:
    """CPUs and memory that this process may use.

    Attributes:
        cpus: whole CPUs, at least one.
        memory_bytes: memory, including the page cache of its files.
        machine_cpus: CPUs of the machine.
        machine_memory_bytes: memory of the machine.
        cpus_limited_by: what allows fewer CPUs than the machine has; empty if nothing does.
    """

    cpus: int
    memory_bytes: int
    machine_cpus: int
    machine_memory_bytes: int
    cpus_limited_by: str = ""

    @property
    def memory_is_limited(self) -> bool:
        """Whether a cgroup allows less memory than the machine has."""
        return self.memory_bytes < self.machine_memory_bytes

    def line(self) -> str:
        """Return the limits in one line; empty if all of the machine may be used."""
        limits = []
        if self.cpus_limited_by:
            limits.append(f"{self.cpus} of {count(self.machine_cpus, 'CPU')} ({self.cpus_limited_by})")
        if self.memory_is_limited:
            limits.append(f"{size(self.memory_bytes)} of {size(self.machine_memory_bytes)} of memory (cgroup limit)")
        return f"limited to {' and '.join(limits)}" if limits else ""


def node_limits(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> NodeLimits:
    """Return the limits of this process: its CPU affinity, and the quotas of its cgroups, of version 1 or 2.

    ``membership`` is the file that lists the cgroups of this process, ``cgroups`` the folder where they are mounted.
    """
    machine_cpus, machine_memory = os.cpu_count() or 1, psutil.virtual_memory().total
    # A batch scheduler or `docker run --cpuset-cpus` restricts the affinity; taskset does, too.
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine_cpus
    quota = min(_cpu_quotas(cgroups, membership), default=float(machine_cpus))
    # A process with a quota of half a CPU still needs one to run at all.
    cpus = max(1, min(machine_cpus, affinity, int(quota)))
    reason = "" if cpus == machine_cpus else "taskset or cpuset" if affinity <= quota else "CPU quota"
    memory = min(_memory_limits(cgroups, membership), default=machine_memory)
    return NodeLimits(cpus, min(machine_memory, memory), machine_cpus, machine_memory, reason)


def _cpu_quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """Yield the CPU quotas of this process's cgroups and those above, in CPUs."""
    for folder in _folders("cpu", cgroups, membership):
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota and period:
            yield quota / period
        quota_and_period = _text(folder / "cpu.max").split()
        if len(quota_and_period) == 2 and quota_and_period[0] != "max":
            yield int(quota_and_period[0]) / int(quota_and_period[1])


def _memory_limits(cgroups: Path, membership: Path) -> Iterator[int]:
    """Yield the memory limits of this process's cgroups and those above, in bytes."""
    for folder in _folders("memory", cgroups, membership):
        for name in ("memory.max", "memory.limit_in_bytes"):
            if limit := _number(folder / name):
                yield limit


def _folders(controller: str, cgroups: Path, membership: Path) -> Iterator[Path]:
    """Yield this process's cgroup of a controller and those above it, all of whose limits apply.

    A container may see its own cgroup as the topmost, whatever path ``membership`` has: folders may not exist.
    """
    for line in _text(membership).splitlines():
        _, _, hierarchy_and_path = line.partition(":")
        controllers, _, path = hierarchy_and_path.partition(":")
        if not controllers:  # version 2, alone or beside version 1
            mounts = [cgroups, cgroups / "unified"]
        elif controller in controllers.split(","):
            mounts = [cgroups / controller] + [cgroups / controllers] * (controllers != controller)
        else:
            continue
        parts = [part for part in path.split("/") if part]
        if ".." in parts:  # outside of what the container sees
            parts = []
        for mount in mounts:
            yield from (mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1))


def _number(file: Path) -> int | None:
    """Return the number in a file; None if there is no file, or no limit ("max" or -1) in it."""
    text = _text(file)
    return int(text) if text.isdecimal() else None


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
