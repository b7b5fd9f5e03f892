"""Example images for the report's page: the views of one image, and the most confident mistakes."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from googlenet.evaluation.crops import KINDS, View, box_of
from googlenet.evaluation.views import cut_views
from googlenet.images.decoding import Pixels, decode_rgb
from googlenet.images.scaled_image import scale_image
from pipelines.report.schema import Mistake
from pipelines.run.dataset import image_ids, open_records, read_manifest
from pipelines.run.predictions import EvaluatedEnsemble
from pipelines.run.storage import Storage

VIEW_SIDE_PX = 64
MISTAKE_SIDE_PX = 168
MISTAKES_SHOWN = 12
JPEG_QUALITY = 80


@dataclass(frozen=True)
class ViewStrip:
    """The views of one square at one scale side by side, as the source of an HTML image."""

    title: str
    source: str
    views: int


def view_strips(run: Storage, ensemble: EvaluatedEnsemble) -> tuple[str, list[ViewStrip]]:
    """Return the id of the first validation image, and its views as a strip for each scale and square."""
    record = open_records(run, read_manifest(run).splits["val"])[0]
    pixels = decode_rgb(record.image)
    strips: dict[str, list[View]] = {}
    for view in ensemble.views:
        strips.setdefault(f"{view.scale_px} px, {view.square}", []).append(view)
    return record.image_id, [
        ViewStrip(title, _strip(pixels, views, ensemble.crop_px), len(views)) for title, views in strips.items()
    ]


def _strip(pixels: Pixels, views: list[View], crop_px: int) -> str:
    height, width = pixels.shape[:2]
    ordered = sorted(views, key=lambda view: (view.mirrored, KINDS.index(view.kind)))
    boxes = [box_of(view, width, height, crop_px) for view in ordered]
    cut = cut_views(scale_image(pixels, [views[0].scale_px]), boxes, crop_px).permute(0, 2, 3, 1).numpy()
    small = [Image.fromarray(view).resize((VIEW_SIDE_PX, VIEW_SIDE_PX), Image.Resampling.LANCZOS) for view in cut]
    return _source(np.concatenate([np.asarray(view) for view in small], axis=1))


def mistakes_with_pictures(run: Storage, mistakes: list[Mistake]) -> list[dict[str, Any]]:
    """Return the first of the report's mistakes, each with its image as ``source``."""
    split = read_manifest(run).splits["val"]
    index = {image_id: number for number, image_id in enumerate(image_ids(run, split))}
    records = open_records(run, split)
    shown = []
    for mistake in mistakes[:MISTAKES_SHOWN]:
        image = Image.fromarray(decode_rgb(records[index[mistake["image_id"]]].image))
        image.thumbnail((MISTAKE_SIDE_PX, MISTAKE_SIDE_PX), Image.Resampling.LANCZOS)
        shown.append({**mistake, "source": _source(np.asarray(image))})
    return shown


def _source(pixels: Pixels) -> str:
    """Return an image as a data URL."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
