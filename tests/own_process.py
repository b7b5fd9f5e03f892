"""The marker ``processes``: tests that start a process have it, and tests without it cannot start one.

``make quick`` runs the tests without the marker, so it has to be right. With several pytest processes, the tests on the
shared cluster stay together in one group, and all others by their file, whose fixtures they share.
The marker ``apart`` is for tests that read the finished run and do not use that cluster: they stay with their file.
"""

import functools
import gc
import multiprocessing.util
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# All that starts a process. Python's audit events name them too, but a hook for these is called a million times: for
# each ``id()``, of which copies of networks are made.
STARTS: tuple[tuple[Any, str], ...] = (
    (subprocess.Popen, "_execute_child"),
    (os, "fork"),
    (os, "forkpty"),
    (os, "posix_spawn"),
    (os, "posix_spawnp"),
    (os, "system"),
    (multiprocessing.util, "spawnv_passfds"),
)
# All that tests start inherits these. OpenMP's threads wait by spinning: with two threads in each of two pytest
# processes, the tests of `make quick` took 358 s instead of 92 s on two cores.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
# A job of the suite computes for two seconds; nine tenths of its processor time are starts of Ray's processes. Idle
# ones are kept for the next test; none is started before there is work for it, nor the one that watches for preempted
# nodes. Ray's workers would give way to all that the other pytest process does (nice 15): the longest group of tests
# would take longer still. Nobody looks at the dashboard, whose figures are collected once a minute. A replica's five
# small processes start at once, as on a cluster that a command starts, also on those that tests start themselves.
LEAN_RAY = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_metrics_report_interval_ms": "60000",
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
    "RAY_idle_worker_killing_time_threshold_ms": "60000",
    "RAY_num_workers_soft_limit": "8",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_worker_niceness": "0",
    "RAY_worker_maximum_startup_concurrency": "8",
}
# PyTorch's compiler would start processes that import PyTorch, in case there are kernels for a GPU to compile.
LEAN_COMPILER = {"TORCH_WARM_POOL": "0"}
# `make test` would pass its own options on to the commands of make that tests run.
OF_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS")
# The file of those marked as ``apart`` that takes longest.
LONGEST_APART = "test_changing_cluster"
# The fixtures that start the shared cluster and the S3 server, and the one that trains a run on the cluster.
CLUSTER, STORE, FINISHED = "ray_cluster", "object_store", "finished_run"


class _Watch:
    """Starts of processes during the test that is running; None while any test may start them."""

    started: list[str] | None = None


def _watched(name: str, start: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(start)
    def watched(*arguments: Any, **options: Any) -> Any:
        # The first import of torchvision in a process asks ldconfig for CUDA's libraries: no test can leave that out.
        if _Watch.started is not None and "ldconfig" not in str(arguments):
            _Watch.started.append(f"{name}{arguments[:3]}")
        return start(*arguments, **options)

    return watched


def pytest_load_initial_conftests() -> None:
    os.environ.update(ONE_THREAD)  # before conftest.py imports PyTorch, which reads it once


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # imports create a million objects that stay: searching them for garbage takes seconds
    config.option.loadscopereorder = False  # pytest-xdist hands groups out in the order below
    os.environ.update(LEAN_RAY | LEAN_COMPILER)
    for name in OF_MAKE:
        os.environ.pop(name, None)
    for owner, name in STARTS:
        setattr(owner, name, _watched(name, getattr(owner, name)))


def pytest_itemcollected(item: pytest.Item) -> None:
    fixtures = set(getattr(item, "fixturenames", ()))
    if fixtures & {CLUSTER, STORE, FINISHED}:
        item.add_marker("processes")
    if fixtures & {CLUSTER, FINISHED}:
        item.add_marker("cluster")
    item.add_marker(pytest.mark.xdist_group(CLUSTER if is_on_cluster(item) else item.nodeid.partition("::")[0]))


def is_on_cluster(item: pytest.Item) -> bool:
    """Return whether a test belongs to the group that uses the shared cluster."""
    return bool(item.get_closest_marker("cluster") and not item.get_closest_marker("apart"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest groups; those that wait for the finished run come when it is there; quick files last."""

    def place(item: pytest.Item) -> int:
        if not item.get_closest_marker("processes"):
            return 4
        if item.get_closest_marker("apart"):
            return 2 if item.path.stem == LONGEST_APART else 3
        return 0 if is_on_cluster(item) else 1

    items.sort(key=place)


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()
    gc.enable()
    if getattr(session.config.option, "loadgroup", False) and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError(
            "this pytest-xdist keeps no groups with this pytest: install the versions in constraints.txt"
        )


@pytest.fixture(autouse=True)
def own_process(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that starts a process without having the marker."""
    if request.node.get_closest_marker("processes"):
        yield
        return
    _Watch.started = []
    yield
    started, _Watch.started = _Watch.started, None
    if started:
        pytest.fail(f"mark this test with pytest.mark.processes, since it starts {started[0]}")
