"""A server of one file on loopback, whose addresses fail in the ways that real ones do."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FileServer:
    """The served bytes, and the requests so far: path, and first byte asked for.

    Below ``/whole`` the file is served in ranges, below ``/cut`` likewise but at most 1,000 bytes at once, below
    ``/from-the-start`` without ranges, below ``/all-as-a-part`` whole in answer to any range, below ``/no-length`` its
    first 100 bytes with a length that is no number, below ``/wrong`` with another byte; below ``/page`` there is
    something else, below ``/empty`` nothing, and ``/loop`` leads to itself.
    """

    data: bytes
    address: str = ""
    asked: list[tuple[str, int]] = field(default_factory=list)


class _Answers(BaseHTTPRequestHandler):
    def __init__(self, server: FileServer, *args: Any) -> None:
        self.files = server
        super().__init__(*args)

    def do_GET(self) -> None:
        data = self.files.data
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.files.asked.append((self.path, first))
        kind = self.path.split("/")[1]
        if kind == "loop":
            self.send_response(302)
            self.send_header("Location", self.path)
            self.end_headers()
            return
        if kind in ("from-the-start", "no-length"):
            first = 0
        elif kind == "all-as-a-part":
            self._send_part(data)
            return
        elif kind == "wrong":
            data = bytes([data[0] ^ 1]) + data[1:]
        elif kind == "page":
            first, data = 0, b"<html>Sign in to the hotel's network</html>"
        elif kind == "empty":
            data = b""
        elif kind not in ("whole", "cut"):
            self.send_error(404)
            return
        if first >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", "many" if kind == "no-length" else str(len(data) - first))
        self.end_headers()
        most = {"cut": 1000, "no-length": 100}.get(kind, len(data))
        self.wfile.write(data[first : first + most])

    def _send_part(self, data: bytes) -> None:
        self.send_response(206)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Range", f"bytes 0-{len(data) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Keep the terminal of the tests clean."""


@contextmanager
def file_server(data: bytes) -> Iterator[FileServer]:
    """Serve ``data`` during the block."""
    files = FileServer(data)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Answers, files))
    files.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
