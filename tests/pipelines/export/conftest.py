"""A small finished run to change, its export to a folder, and a photograph to answer."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.export.ensemble_folder import export_ensemble
from tests.pipelines.export.exports import RUN
from tests.pipelines.test_old_run import OLD


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "run"))


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    export_ensemble(RUN, str(tmp_path / "exported"))
    return tmp_path / "exported"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photograph that its camera turned: it is stored lying, and answered upright."""
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    return tmp_path / "photo.png"
