"""A Hub of Hugging Face on loopback: a folder, as far as huggingface_hub asks to read it and to commit to it."""

import base64
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
REVISIONS = ("main", "v1", "feature/x", "refs/convert/parquet", COMMIT)
GATED = "gated"
# Whoever sends it may write.
TOKEN = "hf_of_the_tests"  # noqa: S105


class _Answers(BaseHTTPRequestHandler):
    """Answers for the repositories ``<root>/models/OWNER/REPO`` and ``<root>/datasets/OWNER/REPO``."""

    protocol_version = "HTTP/1.1"
    ranges = "bytes"

    def __init__(self, root: Path, asked: list[str], failures: list[int], *args: Any) -> None:
        self.root, self.asked, self.failures = root, asked, failures
        super().__init__(*args)

    def do_GET(self) -> None:
        self.asked.append(" ".join([self.command, self.path, self.headers.get("Range", "")]).rstrip())
        if self.failures:
            self._refuse(self.failures.pop(0), "")
            return
        words = self._words()
        if words == ["api", "agent-harnesses"]:  # asked by huggingface_hub once a day
            self._refuse(404, "")
        elif words[0] == "api":
            _, kind, owner, name, *rest = words
            self._about(self.root / kind / owner / name, rest)
        else:
            kind = words.pop(0) if words[0] == "datasets" else "models"
            owner, name, _, revision, *path = words
            self._file(self.root / kind / owner / name, revision, "/".join(path))

    def _words(self) -> list[str]:
        """Return the parts of the path; a / in the name of a revision comes as %2F, and is part of one."""
        return [unquote(word) for word in urlsplit(self.path).path.strip("/").split("/")]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        words = self._words()
        if words[1] == "validate-yaml":
            self._send(b'{"errors": [], "warnings": []}')
        elif words[-1] == "create":
            self._create(json.loads(body))
        else:
            _, kind, owner, name, request, revision = words
            repo = self.root / kind / owner / name
            if self._found(repo, revision) and (request == "paths-info" or self._may_write()):
                answer = {"paths-info": self._entries, "preupload": self._preupload, "commit": self._commit}[request]
                self._send(json.dumps(answer(repo, body)).encode())

    def _create(self, asked: dict[str, Any]) -> None:
        repo = self.root / "models" / asked.get("organization", "me") / asked["name"]
        if not self._may_write():
            return
        status = 409 if repo.exists() else 200
        if status == 200:
            repo.mkdir(parents=True)
            (self.root / "created.json").write_text(json.dumps(asked))
        url = f"http://{self.headers['Host']}/{repo.parent.name}/{repo.name}"
        self._send(json.dumps({"url": url}).encode(), status)

    def _may_write(self) -> bool:
        if self.headers["Authorization"] == f"Bearer {TOKEN}":
            return True
        self._refuse(401, "")
        return False

    def _entries(self, repo: Path, body: bytes) -> list[dict[str, Any]]:
        paths = [repo / path for path in json.loads(body)["paths"]]
        return [self._entry(repo, path) for path in paths if path.exists()]

    def _preupload(self, _repo: Path, body: bytes) -> dict[str, Any]:
        modes = {"uploadMode": "regular", "shouldIgnore": False}
        return {"files": [{"path": file["path"], **modes} for file in json.loads(body)["files"]]}

    def _commit(self, repo: Path, body: bytes) -> dict[str, Any]:
        for change in map(json.loads, body.splitlines()):
            if change["key"] == "file":
                (repo / change["value"]["path"]).write_bytes(base64.b64decode(change["value"]["content"]))
            elif change["key"] == "deletedFile":
                (repo / change["value"]["path"]).unlink()
        url = f"http://{self.headers['Host']}/{repo.parent.name}/{repo.name}/commit/{COMMIT}"
        return {"commitUrl": url, "commitOid": COMMIT, "success": True}

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
        headers |= {"X-Repo-Commit": COMMIT, "Accept-Ranges": self.ranges, "Content-Length": str(len(body))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def hub_of(root: Path, failures: list[int] | None = None) -> Iterator[tuple[str, list[str]]]:
    """Serve the repositories below ``root``; yield the address, and a list that grows by each request.

    The statuses in ``failures``, which may grow while it serves, are the answers to the next requests.
    """
    asked: list[str] = []
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(_Answers, root, asked, failures if failures is not None else [])
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
