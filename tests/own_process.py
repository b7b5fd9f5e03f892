"""The suite's environment and files, and the marker ``processes``, without which a test cannot start a process.

``make quick`` runs the tests without the marker, so it has to be right. With several pytest processes, the tests on the
shared cluster stay together in one group, and all others by their file, whose fixtures they share.
The marker ``apart`` is for tests that read the finished run and do not use that cluster: they stay with their file.
"""

import functools
import gc
import multiprocessing.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
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
# would take longer still. Nobody looks at the dashboard, whose figures are collected once a minute. A replica's four
# small processes start at once, as on a cluster that a command starts, also on those that tests start themselves. The
# process that follows the workers' logs, which nobody reads, looks for them once an hour instead of ten times a second.
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
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
    "LOG_NAME_UPDATE_INTERVAL_S": "3600",
}
# PyTorch's compiler would start processes that import PyTorch, in case there are kernels for a GPU to compile.
LEAN_COMPILER = {"TORCH_WARM_POOL": "0"}
# Python in all that tests start finds a module there that it imports first.
LEAN_START = str(Path(__file__).parent / "lean_start")
# Ray counts GPUs wherever it starts, and the suite's expectations are those of CPUs: `make gpu-check` is for GPUs.
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
# Signatures, hooks, folders that are allowed, a token: of the user and the machine, read from their files.
NO_SETTINGS_IN_FILES = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "HF_TOKEN_PATH": os.devnull,
}
# What a shell has exported for the user's own work: servers that tests would write to, clusters that they would use,
# tokens, proxies that no server on loopback is behind, the repository whose hook runs the tests.
OF_THE_USER = ("AWS_", "GIT_", "GOOGLENET_COMMIT", "HF_", "MLFLOW_", "RAY_")
OF_PROXIES = "_proxy"
# `make test` would pass its own options on to the commands of make that tests run.
OF_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS")
# Those of this Makefile, which make exports if they were given on its command line.
OF_MAKEFILE = ("ARGS", "PORT", "PYTHON", "RUN_DIR")
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


def own_environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the whole suite and of all that it starts, on whatever machine and from any shell."""
    kept = {
        name: value
        for name, value in given.items()
        if not name.startswith((*OF_THE_USER, *OF_MAKE))
        and name not in OF_MAKEFILE
        and not name.lower().endswith(OF_PROXIES)
    }
    others = [folder for folder in kept.get("PYTHONPATH", "").split(os.pathsep) if folder not in ("", LEAN_START)]
    search = {"PYTHONPATH": os.pathsep.join([LEAN_START, *others])}
    return kept | ONE_THREAD | LEAN_RAY | LEAN_COMPILER | NO_GPU | NO_SETTINGS_IN_FILES | search


def pytest_load_initial_conftests() -> None:
    own = own_environment(os.environ)  # before conftest.py imports PyTorch, which reads its variables once
    os.environ.clear()
    os.environ.update(own)


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # imports create a million objects that stay: searching them for garbage takes seconds
    config.option.loadscopereorder = False  # pytest-xdist hands groups out in the order below
    for owner, name in STARTS:
        setattr(owner, name, _watched(name, getattr(owner, name)))


def pytest_itemcollected(item: pytest.Item) -> None:
    fixtures = set(getattr(item, "fixturenames", ()))
    if fixtures & {CLUSTER, STORE, FINISHED}:
        item.add_marker("processes")
    if fixtures & {CLUSTER, FINISHED}:
        item.add_marker("cluster")
    if item.get_closest_marker("linux") and sys.platform != "linux":
        item.add_marker(pytest.mark.skip(reason="needs Linux"))
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


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Watch a test without the marker, with all fixtures that are made for it, those of its file among them."""
    _Watch.started = None if item.get_closest_marker("processes") else []
    yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Fail a test that has started a process without having the marker."""
    yield
    started, _Watch.started = _Watch.started, None
    if started:
        pytest.fail(f"mark this test with pytest.mark.processes, since it starts {started[0]}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remove the files of a run without failures, two gigabytes.

    pytest's own policy "failed" also removes each test's folder at its end, and gives the next test a folder of the
    same name, by which MLflow keeps its connections to a database.
    """
    config = session.config
    if exitstatus == 0 and config.option.basetemp is None and not hasattr(config, "workerinput"):
        shutil.rmtree(config._tmp_path_factory.getbasetemp(), ignore_errors=True)  # type: ignore[attr-defined]
