"""The Python that runs a command: its version, the packages that it lacks, and whether it can start threads.

Commands check this before their other imports, which would end with a traceback about the first missing package, or
about an interruption, which is how NumPy reports that it cannot start threads. Older Pythons, which are refused, can
run this module too.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OLDEST_PYTHON = (3, 11)
# As in pyproject.toml.
PACKAGES = (
    "aiohttp", "filelock", "fsspec", "grpcio", "huggingface-hub", "jaxtyping", "jinja2", "matplotlib", "mlflow",
    "numpy", "opencv-python-headless", "pandas", "pillow", "psutil", "pyarrow", "pydantic", "ray", "rich",
    "safetensors", "scikit-learn", "scipy", "simplejpeg", "torch", "torchvision", "typing-extensions",
)  # fmt: skip
# Modules that are not called like their package.
MODULES = {"grpcio": "grpc", "opencv-python-headless": "cv2", "pillow": "PIL", "scikit-learn": "sklearn"}
MOST_NAMED = 4
# Libraries start about two threads for each CPU when they are imported, up to this number of CPUs, and a command some.
MOST_CPUS, THREADS_PER_CPU, OTHER_THREADS = 64, 2, 4
# That of a UserError: another attempt would end the same way.
EXIT_CODE = 2
# Ray sets this variable for a submitted job.
SUBMITTED_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
# As of every command that is interrupted.
INTERRUPTED_EXIT_CODE = 130
CURE = f"run `make setup` and `. .venv/bin/activate` in {ROOT}"
CURE_IN_JOB = "start Ray in the environment that cluster/node_setup.sh installs on every node"
OTHER_CURE_IN_JOB = "submit the job with --runtime-env cluster/runtime_env.yaml"


def check_interpreter() -> None:
    """Exit with one line if this Python cannot run the commands; let its child processes find the project.

    Until the command has its own handler, Ctrl-C ends it without a traceback.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    problem = problem_of_interpreter() or problem_of_threads()
    if problem:
        sys.stderr.write(f"error: {problem}\n")
        sys.exit(EXIT_CODE)
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(ROOT) not in folders:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), *folders]))


def _end(_signal: int, _frame: object) -> None:
    os._exit(INTERRUPTED_EXIT_CODE)  # an exception would end as a failure of the import that it meets


def problem_of_interpreter() -> str:
    """Return what is wrong with this Python and how to fix it; empty if it can run the commands."""
    in_job = SUBMITTED_JOB in os.environ
    host = f" on {os.uname().nodename}" if in_job else ""
    python = f"Python {_dotted(sys.version_info[:3])} at {sys.executable}{host}"
    cure = CURE_IN_JOB if in_job else CURE
    if sys.version_info[:2] < OLDEST_PYTHON:
        return f"{python} is too old, {_dotted(OLDEST_PYTHON)} is needed: {cure}"
    missing = [name for name in PACKAGES if not _is_installed(MODULES.get(name, name.replace("-", "_")))]
    if not missing:
        return ""
    return f"{python} lacks {_listed(missing)}: {cure}{f', or {OTHER_CURE_IN_JOB}' if in_job else ''}"


def problem_of_threads() -> str:
    """Return that this user cannot start the threads of a command, and how to fix it; empty if that is possible."""
    # macOS binds no process to CPUs.
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = THREADS_PER_CPU * min(MOST_CPUS, cpus) + OTHER_THREADS
    ended = threading.Event()
    threads = [threading.Thread(target=ended.wait, daemon=True) for _ in range(wanted)]
    started = 0
    with suppress(RuntimeError):
        for thread in threads:
            thread.start()
            started += 1
    ended.set()
    for thread in threads[:started]:
        thread.join()
    if started == wanted:
        return ""
    most, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    limit = "" if most == resource.RLIM_INFINITY else f" (this user may have {most:,} processes and threads)"
    return (
        f"only {started} of {wanted} threads could be started{limit}: raise the limit with ulimit -u, or that of the "
        "container"
    )


def _is_installed(module: str) -> bool:
    """Return whether the module can be found; it is not imported."""
    return module in sys.modules or importlib.util.find_spec(module) is not None


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _listed(names: list[str]) -> str:
    if len(names) <= MOST_NAMED + 1:
        return ", ".join(names)
    return f"{', '.join(names[:MOST_NAMED])} and {len(names) - MOST_NAMED} more packages"
