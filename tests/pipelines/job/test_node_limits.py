"""Claims: a container, a cgroup and the CPU affinity limit the CPUs and the memory that a command counts with."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipelines.job.node_limits import NodeLimits, node_limits
from pipelines.job.ray_session import local_resources
from tests.project import ROOT

GIB = 1 << 30
MACHINE_CPUS, MACHINE_MEMORY = os.cpu_count() or 1, psutil.virtual_memory().total
# The suite itself may run under taskset or in a container.
OWN_CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else MACHINE_CPUS
SLICE, JOB = "user.slice", "user.slice/job_7"
NO_LIMIT_V1 = "9223372036854771712"


class Cgroups:
    """Files that stand for /sys/fs/cgroup and /proc/self/cgroup."""

    def __init__(self, folder: Path, membership: str) -> None:
        self.folder, self.membership = folder / "cgroup", folder / "membership"
        self.membership.write_text(membership)

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")

    def limits(self) -> NodeLimits:
        return node_limits(self.folder, self.membership)


@pytest.fixture
def version_1(tmp_path: Path) -> Cgroups:
    """A process in a cgroup of version 1, as a batch scheduler makes it."""
    return Cgroups(tmp_path, f"9:memory:/{JOB}\n4:cpu,cpuacct:/{JOB}\n1:name=systemd:/elsewhere\n0::/\n")


@pytest.fixture
def version_2(tmp_path: Path) -> Cgroups:
    """A process in a cgroup of version 2."""
    return Cgroups(tmp_path, f"0::/{JOB}\n")


def quota_of(cpus: float) -> str:
    return str(int(100_000 * cpus))


def is_unlimited(limits: NodeLimits) -> bool:
    return limits.cpus == OWN_CPUS and limits.memory_bytes == MACHINE_MEMORY and not limits.memory_is_limited


def test_cgroups_without_limits_leave_the_whole_machine(version_2: Cgroups) -> None:
    version_2.write({f"{JOB}/cpu.max": "max 100000", f"{JOB}/memory.max": "max"})
    assert is_unlimited(version_2.limits())


def test_a_system_without_cgroups_leaves_the_whole_machine(tmp_path: Path) -> None:
    assert is_unlimited(node_limits(tmp_path / "none", tmp_path / "none"))


def test_version_1_says_without_limits_that_it_has_none(version_1: Cgroups) -> None:
    version_1.write({f"memory/{JOB}/memory.limit_in_bytes": NO_LIMIT_V1})
    version_1.write({f"cpu,cpuacct/{JOB}/cpu.cfs_quota_us": "-1", f"cpu,cpuacct/{JOB}/cpu.cfs_period_us": "100000"})
    assert is_unlimited(version_1.limits())


def test_a_quota_of_version_1_limits_the_cpus(version_1: Cgroups) -> None:
    files = {"cpu.cfs_quota_us": quota_of(1), "cpu.cfs_period_us": "100000"}
    version_1.write({f"cpu,cpuacct/{JOB}/{name}": text for name, text in files.items()})
    assert version_1.limits().cpus == 1


def test_a_memory_limit_of_version_1_counts(version_1: Cgroups) -> None:
    version_1.write({f"memory/{JOB}/memory.limit_in_bytes": str(GIB)})
    assert version_1.limits().memory_bytes == GIB


@pytest.mark.parametrize("above", [SLICE, JOB, "."])
def test_the_limits_of_cgroups_above_count_too(version_2: Cgroups, above: str) -> None:
    version_2.write({f"{JOB}/cpu.max": "max 100000", f"{JOB}/memory.max": "max"})
    version_2.write({f"{above}/cpu.max": f"{quota_of(1)} 100000", f"{above}/memory.max": str(GIB)})
    assert (version_2.limits().cpus, version_2.limits().memory_bytes) == (1, GIB)


@pytest.mark.parametrize("membership", ["0::/docker/4f1c", "0::/", "0::/../../system.slice/ray", "3:cpu:/docker/4f1c"])
def test_a_container_that_sees_its_own_cgroup_as_the_topmost_is_limited(tmp_path: Path, membership: str) -> None:
    container = Cgroups(tmp_path, f"{membership}\n")
    container.write({"cpu.max": f"{quota_of(1)} 100000", "cpu/cpu.cfs_quota_us": quota_of(1)})
    container.write({"cpu/cpu.cfs_period_us": "100000"})
    assert container.limits().cpus == 1


@pytest.mark.parametrize(("quota", "cpus"), [(0.3, 1), (1.9, 1), (MACHINE_CPUS + 4, OWN_CPUS)])
def test_a_quota_is_rounded_down_but_to_one_at_least(version_2: Cgroups, quota: float, cpus: int) -> None:
    version_2.write({f"{JOB}/cpu.max": f"{quota_of(quota)} 100000"})
    assert version_2.limits().cpus == cpus


def test_a_limit_above_the_machine_is_none(version_2: Cgroups) -> None:
    version_2.write({f"{JOB}/memory.max": str(MACHINE_MEMORY + GIB)})
    assert is_unlimited(version_2.limits())


def test_nothing_is_said_where_nothing_is_limited() -> None:
    assert NodeLimits(64, 256 * GIB, 64, 256 * GIB).line() == ""


def test_one_line_says_what_is_limited_and_by_what() -> None:
    limits = NodeLimits(4, 8 * 10**9, 64, 256 * 10**9, "CPU quota")
    assert limits.line() == "limited to 4 of 64 CPUs (CPU quota) and 8.00 GB of 256.00 GB of memory (cgroup limit)"
    memory_alone = NodeLimits(64, 8 * 10**9, 64, 256 * 10**9)
    assert memory_alone.line() == "limited to 8.00 GB of 256.00 GB of memory (cgroup limit)"


def test_a_cluster_on_a_limited_machine_gets_what_the_limits_leave() -> None:
    assert local_resources(NodeLimits(4, 2 * GIB, 64, 256 * GIB, "CPU quota")) == {
        "num_cpus": 4,
        "object_store_memory": (store := int(0.3 * 2 * GIB)),
        "_memory": 2 * GIB - store,
    }
    assert local_resources(NodeLimits(64, 256 * GIB, 64, 256 * GIB)) == {"num_cpus": 64, "object_store_memory": GIB}


def test_gpus_that_the_shell_hides_from_cuda_are_none_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = NodeLimits(64, 256 * GIB, 64, 256 * GIB)
    for hidden, expected in (("-1", 0), ("0,1", None)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert local_resources(limits).get("num_gpus") == expected


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """Restrict this thread to one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [min(before)])
    yield
    os.sched_setaffinity(0, before)


several_cpus = pytest.mark.skipif(MACHINE_CPUS == 1, reason="this machine has one CPU, which nothing can limit")


@several_cpus
@pytest.mark.linux
@pytest.mark.usefixtures("one_cpu")
def test_the_affinity_limits_the_cpus_below_a_larger_quota(version_2: Cgroups) -> None:
    version_2.write({f"{JOB}/cpu.max": f"{quota_of(1.5)} 100000"})
    assert version_2.limits().line() == f"limited to 1 of {MACHINE_CPUS} CPUs (taskset or cpuset)"


@several_cpus
@pytest.mark.linux
@pytest.mark.processes
def test_taskset_limits_the_cpus() -> None:
    cpu = str(min(os.sched_getaffinity(0)))
    ask = "from pipelines.job.node_limits import node_limits; print(node_limits().cpus)"
    command = ["taskset", "-c", cpu, sys.executable, "-c", ask]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout == "1\n"
