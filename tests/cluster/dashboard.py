"""A dashboard of a Ray cluster on loopback that answers requests for jobs as it is told to, also with errors."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Longer than the client waits for an answer.
STALL_SECONDS = 60.0


@dataclass
class Dashboard:
    """Jobs by their ids, each with its status and exit code; the answers to requests are in ``failures`` first.

    ``failures`` holds status codes and texts for the next requests for a job, ``refusal`` those for every upload.
    ``stalled``, if given, is set by the next request for a job, and no such request is answered from then on.
    """

    address: str = ""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    failures: list[tuple[int, str]] = field(default_factory=list)
    refusal: tuple[int, str] | None = None
    stalled: threading.Event | None = None
    submitted: int = 0

    def submit(self, metadata: dict[str, str]) -> str:
        """Add a job that has ended with the next of ``outcomes``; return its id."""
        self.submitted += 1
        name = f"job_{self.submitted}"
        self.jobs[name] = {"type": "SUBMISSION", "entrypoint": "", "submission_id": name, "metadata": metadata}
        self.jobs[name] |= self.outcomes.pop(0)
        return name


class _Answers(BaseHTTPRequestHandler):
    def __init__(self, dashboard: Dashboard, *args: Any) -> None:
        self.dashboard = dashboard
        super().__init__(*args)

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if self.path == "/api/version":
            self._send(200, {"ray_version": "2.60.0"})
        elif self.path == "/api/jobs/":
            self._send(200, list(self.dashboard.jobs.values()))
        elif self.path.startswith("/api/packages/") or name == "tail":  # of a job's output
            self._send(404, "there is none")
        elif self.dashboard.stalled:
            self.dashboard.stalled.set()
            time.sleep(STALL_SECONDS)
        elif self.dashboard.failures:
            self._send(*self.dashboard.failures.pop(0))
        elif name in self.dashboard.jobs:
            self._send(200, self.dashboard.jobs[name])
        else:
            self._send(404, f"Job {name} does not exist")

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._send(*(self.dashboard.refusal or (200, "")))

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._send(200, {"job_id": "", "submission_id": self.dashboard.submit(asked["metadata"])})

    def _send(self, code: int, answer: Any) -> None:
        content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Keep the terminal of the tests clean."""


@contextmanager
def dashboard() -> Iterator[Dashboard]:
    """Run a dashboard during the block."""
    state = Dashboard()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Answers, state))
    state.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
