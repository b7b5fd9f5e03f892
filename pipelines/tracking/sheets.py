"""Sheets of validation images in MLflow: pictures with the answers of a replica, by epoch."""

import re
from collections.abc import Sequence

from PIL.Image import Image

from pipelines.job.console import say
from pipelines.report.contact_sheet import Tile, contact_sheet, small_picture
from pipelines.run.dataset import Manifest, open_records
from pipelines.run.sheet import SheetAnswers, read_sheets
from pipelines.run.storage import Storage
from pipelines.tracking.runs import MlflowRuns

KEY = "validation_sheet"
FOLDER = "images"
# MLflow stores each picture as a PNG file, and then as a smaller one.
SENT = re.compile(rf"{FOLDER}/{KEY}[+%]step[+%](\d+)[+%].*compressed\.webp")


class Sheets:
    """Sends the sheets of one run directory to the MLflow runs of its replicas, each once."""

    def __init__(self, runs: MlflowRuns, run: Storage, manifest: Manifest) -> None:
        self._runs, self._run, self._manifest = runs, run, manifest
        self._sent: dict[int, set[int]] = {}
        self._pictures: dict[int, tuple[Image, int]] = {}
        self._unreadable = False

    def send_replica(self, replica: int) -> None:
        """Send the new sheets of a replica."""
        sheets = read_sheets(self._run, replica)
        if not sheets:
            return
        child = self._runs.child(replica)
        if replica not in self._sent:
            stored = (SENT.fullmatch(file.path) for file in self._runs.client.list_artifacts(child, FOLDER))
            self._sent[replica] = {int(match[1]) for match in stored if match}
        for sheet in sheets:
            if sheet.epoch not in self._sent[replica]:
                if (drawn := self._draw(sheet)) is None:
                    return
                place = {"key": KEY, "step": sheet.epoch, "timestamp": sheet.time_ms}
                self._runs.client.log_image(child, drawn, **place)
                self._sent[replica].add(sheet.epoch)

    def _draw(self, sheet: SheetAnswers) -> Image | None:
        """Return the picture of a sheet; None, and a warning once, if the images cannot be read any more."""
        if self._unreadable:
            return None
        try:
            return contact_sheet(self._tiles(sheet))
        except (OSError, ValueError) as error:
            say(f"warning: MLflow gets no sheets of validation images: {error}")
            self._unreadable = True
            return None

    def _tiles(self, sheet: SheetAnswers) -> list[Tile]:
        self._load(sheet.records)
        classes, tiles = self._manifest.classes, []
        for record, answer, probability in zip(sheet.records, sheet.answers, sheet.probabilities, strict=True):
            picture, label = self._pictures[record]
            tiles.append(Tile(picture, classes[label], classes[answer], probability))
        return tiles

    def _load(self, wanted: Sequence[int]) -> None:
        missing = [record for record in wanted if record not in self._pictures]
        records = open_records(self._run, self._manifest.splits["val"]) if missing else []
        for record in missing:
            data, label = records[record].image, records[record].label
            self._pictures[record] = small_picture(data), label
