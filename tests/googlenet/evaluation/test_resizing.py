"""Resizing as matrix products, which GPUs use, against PyTorch's own kernel for bytes, and against Pillow."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from googlenet.evaluation.crops import scales_px
from googlenet.evaluation.resizing import resized, resized_by_products


def windows(side_px: int) -> torch.Tensor:
    """Return noise, black and white at random, and all white."""
    drawn = np.random.default_rng(side_px).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
    return torch.from_numpy(np.stack([drawn, drawn // 128 * 255, np.full_like(drawn, 255)]))


@pytest.mark.parametrize("side_px", [*scales_px(224), 225, 900])  # the last needs more digits than fp32 has
def test_products_give_the_bytes_of_pytorchs_kernel(side_px: int) -> None:
    squares = windows(side_px)
    assert torch.equal(resized_by_products(squares, 224), resized(squares, 224))


@given(crop_px=st.integers(8, 60), more_px=st.integers(1, 200))
@settings(max_examples=30, deadline=None)
def test_products_give_the_same_bytes_for_any_size(crop_px: int, more_px: int) -> None:
    squares = windows(crop_px + more_px)
    assert torch.equal(resized_by_products(squares, crop_px), resized(squares, crop_px))


def test_products_round_at_most_one_level_otherwise_than_pillow() -> None:
    squares = windows(256)
    ours = resized_by_products(squares, 224).numpy().astype(int)
    theirs = [Image.fromarray(square.numpy()).resize((224, 224), Image.Resampling.BILINEAR) for square in squares]
    assert np.abs(ours - np.stack(theirs)).max() <= 1
