"""An object store in memory whose requests take a while, and fail if they are to."""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

REQUEST_SECONDS = 0.05


class SlowStore(MemoryFileSystem):
    """Files at ``slow://``, of this process.

    Attributes:
        failure: what an opened file fails with; empty for not at all.
        torn: files of which half was read, the first time that they were opened; None for always whole.
        at_once: requests under way.
        most_at_once: the most there were at the same time.
    """

    protocol = "slow"
    store: dict[str, Any] = {}  # noqa: RUF012  # fsspec's own way
    pseudo_dirs = [""]  # noqa: RUF012
    failure = ""
    torn: set[str] | None = None
    at_once = most_at_once = 0
    lock = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("slow://")))

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode != "rb":
            return super()._open(path, mode, **options)
        with self.request():
            if SlowStore.failure:
                raise OSError(SlowStore.failure)
            content = super()._open(path, mode, **options).getvalue()
            if SlowStore.torn is not None and path not in SlowStore.torn:
                SlowStore.torn.add(path)
                content = content[: len(content) // 2]
            return io.BytesIO(content)

    def rm_file(self, path: str) -> None:
        with self.request():
            super().rm_file(path)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Take the time of a request."""
        with self.lock:
            SlowStore.at_once += 1
            SlowStore.most_at_once = max(SlowStore.at_once, SlowStore.most_at_once)
        time.sleep(REQUEST_SECONDS)
        try:
            yield
        finally:
            with self.lock:
                SlowStore.at_once -= 1


@contextmanager
def slow_store() -> Iterator[type[SlowStore]]:
    """Yield a new store at ``slow://``."""
    fsspec.register_implementation("slow", SlowStore, clobber=True)
    SlowStore.store.clear()
    SlowStore.pseudo_dirs[:] = [""]
    SlowStore.failure, SlowStore.torn, SlowStore.most_at_once = "", None, 0
    yield SlowStore
    SlowStore.store.clear()
