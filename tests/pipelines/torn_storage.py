"""A storage that returns a part of each file at first, as one under load may."""

from dataclasses import dataclass, field

from pipelines.run.storage import Storage


@dataclass(frozen=True)
class TornOnce(Storage):
    """A storage that returns half of a file the first time that it is read."""

    torn: set[str] = field(default_factory=set)

    def read(self, name: str) -> bytes:
        data = super().read(name)
        if name in self.torn:
            return data
        self.torn.add(name)
        return data[: len(data) // 2]
