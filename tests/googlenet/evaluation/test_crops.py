"""The 144 views against a brute-force enumeration that crops real pixels with Pillow."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from googlenet.evaluation.crops import (
    CROP_POLICIES,
    Box,
    box_of,
    distinct_views,
    num_views,
    policy_scales_px,
    scales_px,
    view_groups,
    views_of,
    views_of_all,
)
from googlenet.evaluation.views import cut_views
from googlenet.images.scaled_image import scale_image, scaled_size

SIDES = st.integers(20, 700)


def all_boxes(width: int, height: int, crop: int) -> list[Box]:
    return [box_of(view, width, height, crop) for view in views_of(144, crop)]


def brute_force_views(image: Image.Image, crop: int) -> list[np.ndarray]:
    """Return the 144 views as section 7 describes them, step by step on pixels."""
    views = []
    for shorter in (crop * 8 // 7, crop * 9 // 7, crop * 10 // 7, crop * 11 // 7):
        if image.width >= image.height:
            size = (int(image.width * shorter / image.height + 0.5), shorter)
        else:
            size = (shorter, int(image.height * shorter / image.width + 0.5))
        scaled = image.resize(size, Image.Resampling.BILINEAR)
        slack_x, slack_y = scaled.width - shorter, scaled.height - shorter
        for part in (0, 1, 2):  # left, centre, right; or top, centre, bottom
            x, y = part * slack_x // 2, part * slack_y // 2
            square = scaled.crop((x, y, x + shorter, y + shorter))
            far, middle = shorter - crop, (shorter - crop) // 2
            windows = [(0, 0), (far, 0), (0, far), (far, far), (middle, middle)]
            crops = [square.crop((a, b, a + crop, b + crop)) for a, b in windows]
            crops.append(square.resize((crop, crop), Image.Resampling.BILINEAR))
            for view in crops:
                views += [np.asarray(view), np.asarray(ImageOps.mirror(view))]
    return views


def noise(width: int, height: int) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(("width", "height"), [(150, 100), (100, 150), (120, 120), (101, 100), (333, 97)])
def test_views_are_those_of_the_brute_force(width: int, height: int) -> None:
    crop = 42
    image = noise(width, height)
    boxes = all_boxes(width, height, crop)
    ours = cut_views(scale_image(image, scales_px(crop)), boxes, crop).permute(0, 2, 3, 1).numpy()
    reference = np.stack(brute_force_views(Image.fromarray(image), crop))
    assert ours.shape == reference.shape == (144, crop, crop, 3)
    difference = np.abs(ours.astype(int) - reference)
    is_resized = np.array([view.kind == "resized" for view in views_of(144, crop)])
    assert difference[~is_resized].max() == 0
    assert difference[is_resized].max() <= 1  # two libraries round an antialiased resize differently


@pytest.mark.parametrize(("width", "height", "distinct"), [(500, 375, 144), (375, 500, 144), (300, 300, 48)])
def test_square_images_have_48_distinct_views_and_others_144(width: int, height: int, distinct: int) -> None:
    assert len(set(all_boxes(width, height, 224))) == distinct
    assert len(distinct_views(width, height, 224).boxes) == distinct


def test_scales_at_224_are_the_papers() -> None:
    assert scales_px(224) == (256, 288, 320, 352)
    with pytest.raises(ValueError, match="multiple of 7"):
        scales_px(225)


@settings(max_examples=40)
@given(SIDES, SIDES, st.sampled_from([42, 84, 224]))
def test_all_views_lie_inside_the_scaled_image(width: int, height: int, crop: int) -> None:
    for box in all_boxes(width, height, crop):
        scaled_width, scaled_height = scaled_size(width, height, box.scale_px)
        assert min(scaled_width, scaled_height) == box.scale_px
        assert 0 <= box.left_px <= scaled_width - box.side_px
        assert 0 <= box.top_px <= scaled_height - box.side_px
        assert box.side_px in (crop, box.scale_px)


@settings(max_examples=40)
@given(SIDES, SIDES)
def test_half_of_the_views_are_mirrors_of_the_other_half(width: int, height: int) -> None:
    boxes = all_boxes(width, height, 84)
    assert sorted(map(str, boxes[0::2])) == sorted(
        str(b).replace("mirrored=True", "mirrored=False") for b in boxes[1::2]
    )


def test_policies_are_nested_and_of_their_size() -> None:
    chosen = {policy: views_of(policy, 224) for policy in CROP_POLICIES}
    assert {policy: len(set(views)) for policy, views in chosen.items()} == {1: 1, 10: 10, 144: 144}
    (single,) = chosen[1]
    # Caffe's centre crop: the middle 224 of 256.
    box = box_of(single, 500, 375, 224)
    assert (box.scale_px, box.side_px, box.top_px) == (256, 224, 16)
    assert single in chosen[10]
    kinds = {"top_left", "top_right", "bottom_left", "bottom_right", "centre"}
    assert {(v.kind, v.mirrored) for v in chosen[10]} == set(product(kinds, (False, True)))
    assert set(chosen[10]) < set(chosen[144])


@settings(max_examples=40)
@given(SIDES, SIDES)
def test_weighting_distinct_views_equals_averaging_all(width: int, height: int) -> None:
    value = {box: float(number) for number, box in enumerate(all_boxes(width, height, 84))}
    distinct = distinct_views(width, height, 84)
    for row, policy in zip(distinct.weights, CROP_POLICIES, strict=True):
        mean = np.mean([value[box_of(view, width, height, 84)] for view in views_of(policy, 84)])
        assert np.dot(row, [value[box] for box in distinct.boxes]) == pytest.approx(mean)
    assert distinct.counts == (1, 10, 144)
    assert [distinct.boxes[position] for position in distinct.positions] == all_boxes(width, height, 84)


def test_the_users_own_scales_have_36_views_each() -> None:
    views = views_of("256+352", 224)
    assert set(views) == {view for view in views_of(144, 224) if view.scale_px in (256, 352)}
    assert len(views) == num_views("256+352") == 72
    assert policy_scales_px(300, 224) == (300,)
    # A scale of the crop's own size: its four corners, centre and resized square are one window.
    assert len(set(distinct_views(500, 375, 224, ("224",)).boxes)) == 6
    union = views_of_all((1, "256+352", 10), 224)
    assert len(union) == len(set(union)) == 72


@pytest.mark.parametrize("policy", [0, 100, "", "256,320", "320+256", "256+256", "223+256", "a+b"])
def test_a_policy_that_does_not_exist_is_refused_with_an_example(policy: int | str) -> None:
    with pytest.raises(ValueError, match=r"is one of 1, 10, 144, .* such as best:24, or rising scales .*256\+320; got"):
        views_of(policy, 224)


def test_groups_of_views_divide_them_by_scale_square_kind_and_mirror() -> None:
    views = views_of(144, 224)
    groups = view_groups(views)
    assert [int(mask.sum()) for mask in groups.values()] == [36] * 4 + [48] * 3 + [24] * 6 + [72] * 2
    assert all(view.scale_px == 288 for view, inside in zip(views, groups["scale 288 px"], strict=True) if inside)
    assert view_groups(views_of(1, 224)) == {}


def test_mirrored_views_are_mirrors_in_pixels() -> None:
    image = noise(150, 100)
    boxes = all_boxes(150, 100, 42)
    views = cut_views(scale_image(image, scales_px(42)), boxes, 42)
    assert (views[0::2].flip(-1) == views[1::2]).all()
