"""Tar archives made in memory."""

import io
import tarfile
from collections.abc import Mapping


def tar(members: Mapping[str, bytes], mode: str = "w", **options: object) -> bytes:
    """Return an archive of ``members`` by name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, **options) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
