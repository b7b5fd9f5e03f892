"""The predictor against an explicit loop over views and replicas."""

import io
from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image

from googlenet import GoogLeNet
from googlenet.evaluation.averages import Shares
from googlenet.evaluation.crops import box_of, distinct_views, policy_scales_px, scales_px, view_groups, views_of
from googlenet.evaluation.predictor import Predictor, images_at_once, largest_batch, name_of_device
from googlenet.evaluation.stem_sharing import SharedViews
from googlenet.evaluation.views import cut_views
from googlenet.images.scaled_image import ScaledImage, scale_image
from googlenet.network.arithmetic import Arithmetic, can_compile
from googlenet.network.initialisation import initialise
from googlenet.network.preprocessing import CAFFE_PREPROCESSING, SCRATCH_PREPROCESSING
from googlenet.network.weights import Replica
from googlenet.randomness import torch_generator
from tests.gpu.small_training import shallow

CROP = 35


def replica(seed: int, variant: str, width: float = 0.125) -> Replica:
    model = GoogLeNet(5, variant, False, width)  # type: ignore[arg-type]
    initialise(model, "he", torch_generator(seed, "initial_weights"))
    return Replica(model.eval(), CAFFE_PREPROCESSING if variant == "paper" else SCRATCH_PREPROCESSING)


def picture(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def decode(data: bytes) -> ScaledImage:
    return ScaledImage.decode(data, scales_px(CROP))


def view_by_view(
    replicas: list[Replica], data: bytes, at_once: int = 36, dtype: torch.dtype = torch.float32
) -> np.ndarray:
    """Return the (K, 144, C) probabilities of the 144 views, each cut on its own, ``at_once`` in a forward pass.

    Views that show the same pixels are computed once.
    """
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    scaled = scale_image(pixels, scales_px(CROP))
    boxes = [box_of(view, pixels.shape[1], pixels.shape[0], CROP) for view in views_of(144, CROP)]
    views, position = torch.cat([cut_views(scaled, [box], CROP) for box in boxes]).unique(dim=0, return_inverse=True)
    result = []
    for member in replicas:
        network = deepcopy(member.model).to(dtype)
        with torch.no_grad():
            logits = [network(member.preprocessing(batch).to(dtype)).logits for batch in views.split(at_once)]
        result.append(torch.cat(logits)[position].double().softmax(1).numpy())
    return np.array(result)


def undecided(seed: int, data: bytes) -> Replica:
    """Return a replica without a preferred class on this image, so that its answers vary between views."""
    member = replica(seed, "bn")
    probabilities = torch.from_numpy(view_by_view([member], data)[0])
    with torch.no_grad():
        member.model.classifier.bias -= probabilities.log().mean(dim=0)
    return member


def positions(policy: int) -> list[int]:
    return [views_of(144, CROP).index(view) for view in views_of(policy, CROP)]


def test_averages_are_those_of_all_144_views_one_by_one() -> None:
    replicas = [replica(0, "bn"), replica(1, "paper")]
    predictor = Predictor(replicas, CROP)
    # The last has 48 distinct views, and the network sees each of them on its own, which takes long.
    for size, at_once in [((60, 45), 36), ((45, 60), 36), ((50, 50), 1)]:
        data = picture(*size)
        prediction = predictor.predict(decode(data))
        reference = view_by_view(replicas, data, at_once, torch.float64)
        # How fp32 rounds depends on the processor and the batch. Twice as far off as views one by one is rounding.
        tolerance = 2 * np.abs(view_by_view(replicas, data, at_once) - reference).max()
        assert tolerance < 1e-5
        assert prediction.num_views.tolist() == [[1, 10, 144]] * 2
        assert prediction.probabilities.shape == (2, 3, 5)
        for p, policy in enumerate((1, 10, 144)):
            mean = reference[:, positions(policy)].mean(axis=1)
            assert np.abs(prediction.probabilities[:, p] - mean).max() < tolerance
        assert np.abs(prediction.max_pooled - reference.max(axis=1)).max() < tolerance


def test_answers_of_single_views_and_of_groups_are_those_of_the_views_one_by_one() -> None:
    data = picture(60, 45)
    replicas = [undecided(0, data), undecided(1, data)]
    prediction = Predictor(replicas, CROP).predict(decode(data))
    reference = view_by_view(replicas, data)
    everyone = np.concatenate([reference, reference.mean(axis=0, keepdims=True)])
    answers = everyone.argmax(axis=2)
    assert all((answers[-1] != alone).any() for alone in answers[:-1])  # the ensemble's answers are its own
    assert prediction.view_top1.tolist() == answers.tolist()
    groups = view_groups(views_of(144, CROP)).values()
    expected = np.stack([everyone[:, mask].mean(axis=1).argmax(axis=1) for mask in groups], axis=1)
    assert prediction.group_top1.tolist() == expected.tolist()


def test_forward_passes_are_counted_without_what_is_computed_once_for_many_views() -> None:
    predictor = Predictor([replica(0, "bn"), replica(1, "bn")], CROP)
    predictor.predict(decode(picture(60, 45)))
    assert predictor.forward_passes == 2 * 144
    predictor.predict(decode(picture(50, 50)))
    assert predictor.forward_passes == 2 * (144 + 48)


def test_the_users_own_scales_average_over_their_36_views_each() -> None:
    member, data = replica(0, "bn"), picture(60, 45)
    predictor = Predictor([member], CROP, (1, "40+50"))
    found = predictor.predict(ScaledImage.decode(data, (40, 50))).probabilities[0, 1]
    chosen = [n for n, view in enumerate(views_of(144, CROP)) if view.scale_px in (40, 50)]
    assert np.abs(found - view_by_view([member], data)[0, chosen].mean(axis=0)).max() < 1e-6


def test_an_image_is_predicted_alike_whatever_was_predicted_before() -> None:
    predictor = Predictor([replica(0, "paper")], CROP)
    first, second = (decode(picture(*size)) for size in [(60, 45), (50, 50)])
    alone = predictor.predict(first).probabilities
    predictor.predict(second)
    assert np.array_equal(predictor.predict(first).probabilities, alone)


def test_images_in_turn_are_predicted_as_each_alone() -> None:
    predictor = Predictor([replica(0, "paper"), replica(1, "bn")], CROP)
    images = [decode(picture(*size)) for size in [(60, 45), (50, 50), (45, 60)]]
    for image, found in zip(images, predictor.predict_each(iter(images)), strict=True):
        alone = predictor.predict(image)
        assert np.array_equal(found.probabilities, alone.probabilities)
        assert np.array_equal(found.view_top1, alone.view_top1)
    assert list(predictor.predict_each([])) == []


@pytest.mark.parametrize("policies", [(1,), (10,), (1, 10, 144)])
def test_images_that_share_batches_have_their_own_answers(policies: tuple[int, ...]) -> None:
    members = [replica(0, "paper"), replica(1, "bn")]
    images = [ScaledImage.decode(picture(*size), scales_px(CROP)) for size in [(60, 45), (60, 45), (50, 50), (45, 60)]]
    alone, together = Predictor(members, CROP, policies), Predictor(members, CROP, policies, at_once=2)
    for image, found in zip(images, together.predict_each(images), strict=True):
        expected = alone.predict(image)
        assert np.abs(found.probabilities - expected.probabilities).max() < 1e-6
        assert found.num_views.tolist() == expected.num_views.tolist()


def test_a_shared_stem_gives_the_same_answers() -> None:
    # At 112 px the crops lie at whole steps of the stem, as at 224 px.
    members, crop_px = [replica(0, "paper"), replica(1, "bn")], 112
    for size, policy in [((150, 120), "128+144"), ((120, 120), 144)]:
        sharing, alone = (Predictor(members, crop_px, (policy,)) for _ in range(2))
        alone.shares_stem = False
        image = ScaledImage.decode(picture(*size), policy_scales_px(policy, crop_px))
        found, expected = sharing.predict_views(image), alone.predict_views(image)
        assert np.abs(found - expected).max() < 1e-5
        assert sharing.forward_passes == alone.forward_passes
        boxes = distinct_views(*size, crop_px, (policy,)).boxes
        assert SharedViews.cut(sharing.on_device(image), boxes, crop_px) is not None
    assert SharedViews.cut([], distinct_views(60, 45, CROP).boxes, CROP) is None


def test_batches_follow_the_device() -> None:
    assert (largest_batch(224), images_at_once(224, 1, "cpu")) == (48, 1)
    on_gpu = {views: images_at_once(224, views, "cuda") for views in (1, 10, 144)}
    assert on_gpu == {1: 16, 10: 16, 144: 1}
    assert largest_batch(224, "cuda") >= 144


def test_a_device_has_one_name_and_a_gpu_its_number_in_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {name_of_device(device) for device in ("cpu", "cpu:0", torch.device("cpu"))} == {"cpu"}
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)  # there is no second GPU here
    named = [name_of_device(device) for device in ("cuda", torch.device("cuda"), "cuda:0", torch.device("cuda:2"))]
    assert named == ["cuda:1", "cuda:1", "cuda:0", "cuda:2"]
    with pytest.raises(ValueError, match=r"^device must be cpu or cuda, .*, got 'mps'$"):
        Predictor([replica(0, "bn")], CROP, device="mps")


def test_a_device_may_be_an_object_of_pytorch() -> None:
    member, image = replica(0, "bn"), decode(picture(60, 45))
    found = Predictor([member], CROP, device=torch.device("cpu")).predict(image)
    assert np.array_equal(found.probabilities, Predictor([member], CROP).predict(image).probabilities)


def test_a_predictor_for_other_policies_answers_like_one_of_its_own() -> None:
    member, image = replica(0, "bn"), decode(picture(60, 45))
    first = Predictor([member], CROP)
    other, expected = first.with_policies((10,)), Predictor([member], CROP, (10,)).predict(image)
    assert np.array_equal(other.predict(image).probabilities, expected.probabilities)
    assert (first.policies, first.forward_passes, other.forward_passes) == ((1, 10, 144), 0, 10)


def test_views_without_finite_outputs_are_not_counted() -> None:
    broken = replica(0, "bn")
    torch.nn.init.constant_(broken.model.classifier.bias, torch.nan)
    prediction = Predictor([replica(1, "bn"), broken], CROP).predict(decode(picture(60, 45)))
    assert prediction.num_views.tolist() == [[1, 10, 144], [0, 0, 0]]


def test_bf16_answers_like_fp32_within_its_rounding() -> None:
    replicas, image = [replica(0, "paper"), replica(1, "bn")], decode(picture(60, 45))
    exact = Predictor(replicas, CROP).predict(image)
    reduced = Predictor(replicas, CROP, arithmetic=Arithmetic("bf16")).predict(image)
    difference = np.abs(exact.probabilities - reduced.probabilities).max()
    assert 0 < difference < 0.02


def test_logits_in_bf16_do_not_tie_where_those_of_fp32_do_not() -> None:
    model = GoogLeNet(1000, "bn", width=0.125)
    torch.nn.init.constant_(model.classifier.weight, 0.0)
    torch.nn.init.uniform_(model.classifier.bias, 1.0, 1.01, generator=torch.Generator().manual_seed(0))
    images = torch.zeros(1, 3, CROP, CROP)
    with torch.autocast("cpu", torch.bfloat16):
        trained = model.eval()(images).logits
    reduced = Predictor([Replica(model, SCRATCH_PREPROCESSING)], CROP, (1,), arithmetic=Arithmetic("bf16"))
    [probabilities] = reduced.predict(ScaledImage.decode(picture(50, 50), (40,))).probabilities[0]
    assert trained.dtype == torch.float32
    assert (probabilities.argsort() == model.classifier.bias.detach().numpy().argsort()).all()


@pytest.mark.skipif(not can_compile("cpu"), reason="no C++ compiler")
@pytest.mark.timeout(300)
@pytest.mark.processes
def test_compiled_networks_answer_like_eager_ones_and_share_one_compilation() -> None:
    # A scale has 36 views, only 12 of them distinct for a square image, so its batch has to be filled up.
    replicas, policies = [replica(seed, "paper", width=0.03) for seed in range(2)], (1, "40")
    for member in replicas:  # to compile nine inception modules, which differ in their sizes alone, takes long
        shallow(member.model)
    torch._dynamo.utils.counters.clear()
    compiled = Predictor(replicas, CROP, policies, arithmetic=Arithmetic(compiled=True))
    eager = Predictor(replicas, CROP, policies)
    for size in [(60, 45), (50, 50)]:
        image = ScaledImage.decode(picture(*size), (40,))
        difference = compiled.predict(image).probabilities - eager.predict(image).probabilities
        assert np.abs(difference).max() < 1e-6
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_of_policies_with_equally_many_views_the_last_is_pooled() -> None:
    distinct = distinct_views(61, 47, CROP, ("40", "45"))
    assert distinct.counts == (36, 36)
    pooled = Shares.of(distinct, np.zeros((0, 72)), "cpu").largest.tolist()
    assert pooled == distinct.weights[1].nonzero()[0].tolist() != distinct.weights[0].nonzero()[0].tolist()
