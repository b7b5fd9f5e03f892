"""A Hub of Hugging Face on loopback that answers from a folder, as far as huggingface_hub asks to read."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", "v1", COMMIT)
GATED = "gated"


class _Answers(BaseHTTPRequestHandler):
    """Answers for the repositories ``<root>/models/OWNER/REPO`` and ``<root>/datasets/OWNER/REPO``."""

    protocol_version = "HTTP/1.1"

    def __init__(self, root: Path, asked: list[str], *args: Any) -> None:
        self.root, self.asked = root, asked
        super().__init__(*args)

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        words = unquote(urlsplit(self.path).path).strip("/").split("/")
        if words[0] == "api":
            _, kind, owner, name, *rest = words
            self._about(self.root / kind / owner / name, rest)
        else:
            kind = words.pop(0) if words[0] == "datasets" else "models"
            owner, name, _, revision, *path = words
            self._file(self.root / kind / owner / name, revision, "/".join(path))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        """Answer ``paths-info``: what lies at the paths that the form names."""
        self.asked.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        _, kind, owner, name, _, revision = unquote(urlsplit(self.path).path).strip("/").split("/", 5)
        repo = self.root / kind / owner / name
        if self._found(repo, revision):
            paths = [repo / path for path in json.loads(body)["paths"]]
            self._send(json.dumps([self._entry(repo, path) for path in paths if path.exists()]).encode())

    def log_message(self, *_: Any) -> None:
        """Keep the terminal of the tests clean."""

    def _about(self, repo: Path, rest: list[str]) -> None:
        revision = rest[1] if len(rest) > 1 else "main"
        if not self._found(repo, revision):
            return
        if rest[:1] == ["tree"]:
            below = repo / "/".join(rest[2:])
            paths = below.rglob("*") if "recursive=true" in self.path.lower() else below.iterdir()
            answer: Any = [self._entry(repo, path) for path in sorted(paths)]
        else:
            files = [str(path.relative_to(repo)) for path in sorted(repo.rglob("*")) if path.is_file()]
            own = {"_id": "0", "id": f"{repo.parent.name}/{repo.name}", "sha": COMMIT, "private": False, "tags": []}
            answer = {**own, "downloads": 0, "likes": 0, "siblings": [{"rfilename": file} for file in files]}
        self._send(json.dumps(answer).encode())

    def _entry(self, repo: Path, path: Path) -> dict[str, Any]:
        kind = "directory" if path.is_dir() else "file"
        oid = hashlib.sha1(path.read_bytes() if path.is_file() else b"", usedforsecurity=False).hexdigest()
        return {"type": kind, "path": str(path.relative_to(repo)), "oid": oid, "size": path.stat().st_size}

    def _found(self, repo: Path, revision: str) -> bool:
        if repo.name == GATED:
            self._refuse(403, "GatedRepo")
        elif not repo.is_dir():
            self._refuse(401, "RepoNotFound")  # the Hub does not tell strangers which private ones exist
        elif revision not in REVISIONS:
            self._refuse(404, "RevisionNotFound")
        else:
            return True
        return False

    def _file(self, repo: Path, revision: str, name: str) -> None:
        if not self._found(repo, revision):
            return
        if not (repo / name).is_file():
            self._refuse(404, "EntryNotFound")
            return
        data = (repo / name).read_bytes()
        etag = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if not first:
            self._send(data, ETag=f'"{etag}"')
            return
        part = data[int(first) : int(last) + 1 if last else None]
        place = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
        self._send(part, 206, ETag=f'"{etag}"', **{"Content-Range": place})

    def _refuse(self, status: int, code: str) -> None:
        self._send(b"{}", status, **{"X-Error-Code": code})

    def _send(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        headers |= {"X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes", "Content-Length": str(len(body))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def hub_of(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve the repositories below ``root``; yield the address, and a list that grows by each request."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Answers, root, asked))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
