"""Answers of a replica for the sheet of validation images, written while it trains."""

import time

from googlenet.images.records import Records
from googlenet.training.loader import Batch, Request
from googlenet.training.loop import LoopSettings, TrainState, class_probabilities
from pipelines.errors import UserError
from pipelines.job.progress import warn
from pipelines.run.damaged_files import set_aside
from pipelines.run.dataset import Split
from pipelines.run.sheet import SheetAnswers, has_sheet, read_sheets, sheet_records, write_sheets
from pipelines.training.task import ReplicaTask
from pipelines.training.validation import CROPS, CentreCrops


class SheetWriter:
    """Writes the sheets of one replica, in its first worker; those of the first ``epochs`` epochs are kept."""

    def __init__(self, task: ReplicaTask, split: Split, val: Records, epochs: int) -> None:
        self._task, self._split, self._val = task, split, val
        self._sheets = [sheet for sheet in self._kept() if sheet.epoch <= epochs]
        self._records: tuple[int, ...] = ()
        self._batch: Batch | None = None

    def write(self, epoch: int, state: TrainState, settings: LoopSettings) -> None:
        """Write the answers after ``epoch``, counted from 1, if a sheet belongs to it."""
        task = self._task
        if not (task.leads and self._split.images and has_sheet(epoch, task.recipe.epochs)):
            return
        batch = self._batch = self._batch or self._load()
        probabilities, answers = class_probabilities(state.model, state.average.weights, batch, settings).max(dim=1)
        now_ms = int(time.time() * 1000)
        sheet = SheetAnswers(epoch, now_ms, self._records, tuple(answers.tolist()), tuple(probabilities.tolist()))
        self._sheets.append(sheet)
        write_sheets(task.run, task.replica, self._sheets)

    def _kept(self) -> list[SheetAnswers]:
        """Return the sheets of earlier attempts; a damaged file is reported and begun anew."""
        task = self._task
        try:
            return read_sheets(task.run, task.replica) if task.leads else []
        except UserError as error:
            aside = set_aside(task.run, task.files.sheets)
            warn(task.board, task.replica, f"its sheets start anew; the damaged file is kept as {aside}: {error}")
            return []

    def _load(self) -> Batch:
        self._records = sheet_records(self._task.run, self._split)
        crops = CentreCrops(self._val, self._task.recipe.crop_px)
        return crops.load(Request(CROPS, self._records, len(self._records)))
