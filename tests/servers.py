"""Real servers on loopback: a Ray head, S3, MLflow, and a proxy whose connections can be cut."""

import os
import secrets
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.project import ROOT

BIN = Path(sys.executable).parent
CLUSTER = ROOT / "cluster"
# Of clusters that tests make in a process of their own: what nobody looks at is left out.
LEAN_HEAD = {
    "object_store_memory": 200_000_000,
    "include_dashboard": False,
    "no_monitor": True,
    "include_log_monitor": False,
}
HEAD_PORTS = ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")


def free_port() -> int:
    """Return a free port that no outgoing connection gets from the system, also while its server starts again."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with suppress(OSError), socket.socket() as free:
            free.bind(("127.0.0.1", port))
            return port


def with_tools(variables: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with its tools on PATH and more variables."""
    return {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **variables}


def wait_for(url: str, server: subprocess.Popen[bytes]) -> bytes:
    """Wait for the page at ``url`` and return it; empty if it requires a password."""
    for _ in range(1500):  # two test processes share the cores: a server may take a minute to start
        time.sleep(0.1)
        assert server.poll() is None
        try:
            with urllib.request.urlopen(url, timeout=5) as page:
                content: bytes = page.read()
                return content
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                return b""
        except OSError:
            continue
    pytest.fail(f"no answer from {url} within two minutes and a half")


@dataclass(frozen=True)
class Head:
    """A head node: the address for job submission, and its first process."""

    address: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """Kill all processes of the node, including the drivers of its jobs, with SIGKILL."""
        first = psutil.Process(self.process.pid)
        for process in [first, *first.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()


@contextmanager
def head(token: str = "", ports: Mapping[str, int] | None = None) -> Iterator[Head]:
    """Start a head node; kill all its processes at the end."""
    ports = ports or {kind: free_port() for kind in HEAD_PORTS}
    authentication = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {}
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:  # socket paths must be short
        process = subprocess.Popen(
            [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=2", "--object-store-memory=300000000"]
            + ["--node-ip-address=127.0.0.1", f"--temp-dir={folder}", "--no-monitor", "--include-log-monitor=false"]
            + [f"--{kind}={port}" for kind, port in ports.items()],
            env=with_tools(authentication),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        node = Head(f"http://127.0.0.1:{ports['dashboard-port']}", process)
        try:
            wait_for(f"{node.address}/api/version", process)
            yield node
        finally:
            if process.poll() is None:
                node.kill()


def ray_processes(address: str, kind: str) -> Iterator[psutil.Process]:
    """Yield processes such as ``RayTrainWorker`` of the cluster at ``address`` only."""
    for raylet in psutil.process_iter(["name"]):
        words: list[str] = []
        if raylet.info["name"] == "raylet":
            with suppress(psutil.Error):
                words = raylet.cmdline()
        if f"--gcs-address={address}" not in words:
            continue
        for process in raylet.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if kind in " ".join(process.cmdline()):
                    yield process


@contextmanager
def s3_server(variables: Mapping[str, str] | None = None, address: str = "127.0.0.1") -> Iterator[int]:
    """Start an S3 server that stores everything in memory; yield its port."""
    port = free_port()
    server = subprocess.Popen(
        [str(BIN / "moto_server"), "-H", address, "-p", str(port)],
        env=with_tools(variables or {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/moto-api/", server)
        yield port
    finally:
        server.terminate()
        server.wait(timeout=30)


@contextmanager
def mlflow_with_password(folder: Path, store: Path) -> Iterator[tuple[str, str]]:
    """Start the clusters' MLflow server with home ``folder`` and a copy of the database ``store``.

    Yield its address and password.
    """
    port = free_port()
    command = ["bash", str(CLUSTER / "mlflow_server.sh"), "127.0.0.1", str(port), str(folder / "mlflow")]
    (folder / "mlflow").mkdir()
    shutil.copy(store, folder / "mlflow/mlflow.db")
    subprocess.run(command, env=with_tools({"HOME": str(folder)}), check=True, timeout=120)  # it waits for the server
    server = psutil.Process(int((folder / "mlflow/pid").read_text()))
    try:
        for _ in range(600):
            time.sleep(0.1)
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
        else:
            pytest.fail("no answer from MLflow within a minute")
        yield f"http://127.0.0.1:{port}", (folder / "mlflow/password").read_text().strip()
    finally:
        for process in [server, *server.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


class Door:
    """A proxy from its own port to another; once shut, it refuses connections."""

    def __init__(self, to_port: int) -> None:
        self.port, self._to = free_port(), to_port
        self._connections: list[socket.socket] = []
        self.forwarded_bytes = 0
        self.shut_after_bytes: int | None = None
        self.open()

    def open(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def shut(self) -> None:
        """Refuse new connections and cut existing ones."""
        for connection in [self._listening, *self._connections]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._connections = []

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                inside, _ = listening.accept()
                outside = socket.create_connection(("127.0.0.1", self._to))
                self._connections += [inside, outside]
                threading.Thread(target=self._forward, args=(inside, outside), daemon=True).start()

    def _forward(self, inside: socket.socket, outside: socket.socket) -> None:
        with suppress(OSError, ValueError), selectors.DefaultSelector() as ready:
            for one, other in ((inside, outside), (outside, inside)):
                ready.register(one, selectors.EVENT_READ, other)
            while True:
                for key, _ in ready.select():
                    data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                    if not data:
                        inside.close()
                        outside.close()
                        return
                    key.data.sendall(data)
                    self.forwarded_bytes += len(data) if key.fileobj is inside else 0
                    if self.shut_after_bytes is not None and self.forwarded_bytes > self.shut_after_bytes:
                        self.shut()
                        return
