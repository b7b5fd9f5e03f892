"""Crops of validation images: kept for the next validation, in bounded memory."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import pipelines.training.validation
from googlenet.images.records import SCHEMA, WRITE_OPTIONS, Records
from pipelines.training.validation import CentreCrops

CROP_PX, IMAGES = 35, 3


def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def test_crops_are_kept_as_far_as_memory_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = tmp_path / "shard.parquet"
    columns = [
        [f"{i}.jpg" for i in range(IMAGES)],
        [jpeg(i) for i in range(IMAGES)],
        [*range(IMAGES)],
        [50] * 3,
        [40] * 3,
    ]
    pq.write_table(pa.table(dict(zip(SCHEMA.names, columns, strict=True)), SCHEMA), shard, **WRITE_OPTIONS)
    monkeypatch.setattr(pipelines.training.validation, "KEPT_CROPS_BYTES", 2 * 3 * CROP_PX**2)
    crops = CentreCrops(Records(pafs.LocalFileSystem(), [str(shard)], [IMAGES], cache_bytes=1), CROP_PX)
    first = [crops[index] for index in range(IMAGES)]
    again = [crops[index] for index in range(IMAGES)]
    assert [label for _, label in again] == [0, 1, 2]
    assert all(torch.equal(old, new) for (old, _), (new, _) in zip(first, again, strict=True))
    assert [old is new for (old, _), (new, _) in zip(first, again, strict=True)] == [True, True, False]
