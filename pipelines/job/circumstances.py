"""Provenance of a job: commit, code digest, package versions, hardware. Stored with the run, to make it repeatable."""

import hashlib
import os
import platform
import shlex
import socket
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypedDict

from pipelines.job.interpreter import ROOT
from pipelines.job.node_limits import node_limits

PACKAGES = ("torch", "torchvision", "ray", "mlflow", "numpy", "pyarrow", "opencv-python-headless", "simplejpeg")
UNKNOWN = "unknown"
CODE = ("googlenet", "pipelines")
OWN_FILE = "pipelines/errors.py"
# A submitted job has no repository; the submitter can pass its commit in this variable.
COMMIT_VARIABLE = "GOOGLENET_COMMIT"
# End of a commit with files that differ from it.
DIRTY = "-dirty"
GIT_SECONDS = 10
DUBIOUS_OWNERSHIP = "dubious ownership"


class Node(TypedDict):
    """A live node of the cluster; the accelerator is empty if it is unknown."""

    host: str
    cpus: float
    gpus: float
    accelerator: str


class Circumstances(TypedDict):
    """Provenance of a process; CPUs and memory are those that it may use."""

    command: str
    commit: str
    code_digest: str
    versions: dict[str, str]
    host: str
    platform: str
    processor: str
    cpus: int
    memory_gib: float


class Start(Circumstances):
    """A start of a job."""

    started: str
    nodes: list[Node]


def this_start() -> Start:
    """Return the time, the circumstances and the nodes of this start of a job. Needs a connection to a Ray cluster."""
    return {"started": datetime.now(UTC).isoformat(timespec="seconds"), **circumstances(), "nodes": cluster_nodes()}


def circumstances() -> Circumstances:
    """Return the provenance of this process: command, commit, code digest, Python and package versions, machine."""
    limits = node_limits()
    return {
        "command": shlex.join(sys.argv),
        "commit": commit(),
        "code_digest": code_digest(),
        "versions": {"python": platform.python_version(), **{name: package_version(name) for name in PACKAGES}},
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "processor": processor(),
        "cpus": limits.cpus,
        "memory_gib": round(limits.memory_bytes / 2**30, 1),
    }


def package_version(package: str) -> str:
    """Return a package's version; UNKNOWN if its modules come from another one, as cv2 does from opencv-python."""
    try:
        return version(package)
    except PackageNotFoundError:
        return UNKNOWN


def processor() -> str:
    """Return the name of the processor; empty if the system does not tell it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def commit() -> str:
    """Return the repository's commit, with :data:`DIRTY` at its end if files differ from it; empty if it is unknown."""
    return _git_commit()[0] or os.environ.get(COMMIT_VARIABLE, "")


def why_no_commit() -> str:
    """Return in one line why the commit is unknown, and what to do; empty if it is known."""
    known, reason = _git_commit()
    if known or os.environ.get(COMMIT_VARIABLE):
        return ""
    if DUBIOUS_OWNERSHIP in reason:
        fix = shlex.join(["git", "config", "--global", "--add", "safe.directory", str(ROOT)])
        return f"git refuses a checkout that another user owns; allow it with {fix}"
    return f"{reason}; name it in {COMMIT_VARIABLE}"


def _git_commit() -> tuple[str, str]:
    """Return the commit, and why there is none."""
    # An unpacked archive may lie in a repository of something else, such as a home folder that is one.
    tracked, reason = _git("ls-files", "--", OWN_FILE)
    if not tracked:
        return "", reason or f"the git repository around {ROOT} does not hold its files"
    return _git("describe", "--always", f"--dirty={DIRTY}", "--abbrev=40", "--exclude=*")


def _git(*words: str) -> tuple[str, str]:
    """Return what git prints about this project, and the first line of its errors."""
    command = ["git", "-C", str(ROOT), *words]
    english = {**os.environ, "LC_ALL": "C"}  # its errors are compared with DUBIOUS_OWNERSHIP
    try:
        git = subprocess.run(  # noqa: S603
            command,
            env=english,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",  # of a path in another encoding
            check=False,
            timeout=GIT_SECONDS,
        )
    except FileNotFoundError:
        return "", "git is not installed"
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"git failed: {error}"
    return git.stdout.strip(), git.stderr.partition("\n")[0].removeprefix("fatal: ")


def code_digest() -> str:
    """Return the SHA-256 over the Python files of this project; it identifies the code without a repository."""
    digest = hashlib.sha256()
    for path in sorted(path for package in CODE for path in (ROOT / package).rglob("*.py")):
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def cluster_nodes() -> list[Node]:
    """Return host, CPUs, GPUs and accelerator type of each live node. Needs a connection to a Ray cluster."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    return [
        {
            "host": node["NodeManagerHostname"],
            "cpus": node["Resources"].get("CPU", 0),
            "gpus": node["Resources"].get("GPU", 0),
            "accelerator": ", ".join(
                name.removeprefix("accelerator_type:") for name in node["Resources"] if name.startswith("accelerator_")
            ),
        }
        for node in nodes
    ]
