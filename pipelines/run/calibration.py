"""The calibration that a run keeps for its ensemble in calibration.json."""

from googlenet.evaluation.kept_calibration import KeptCalibration
from pipelines.run.directory import CALIBRATION
from pipelines.run.storage import Storage


def read_calibration(run: Storage, digests: tuple[str, ...]) -> KeptCalibration | None:
    """Return the calibration that a run keeps for the weights with these SHA-256; None if it keeps none.

    Raises:
        DamagedFileError: the file is damaged, or was edited.
    """
    if not run.exists(CALIBRATION):
        return None
    kept = run.read_as(CALIBRATION, KeptCalibration.from_dict)
    return kept if kept.weights_digests == digests else None


def write_calibration(run: Storage, calibration: KeptCalibration) -> None:
    """Write calibration.json."""
    run.write_json(CALIBRATION, calibration.to_dict())
