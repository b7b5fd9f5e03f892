"""The network against Table 1 of the paper, written out here a second time."""

import pytest
import torch

from googlenet import GoogLeNet
from googlenet.network.layers import LRN_CONSTANTS, Dropout, LocalResponseNorm

# Row of Table 1: input channels, 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool proj; output size (side, channels).
TABLE_1 = {
    "3a": ((192, 64, 96, 128, 16, 32, 32), (28, 256)),
    "3b": ((256, 128, 128, 192, 32, 96, 64), (28, 480)),
    "4a": ((480, 192, 96, 208, 16, 48, 64), (14, 512)),
    "4b": ((512, 160, 112, 224, 24, 64, 64), (14, 512)),
    "4c": ((512, 128, 128, 256, 24, 64, 64), (14, 512)),
    "4d": ((512, 112, 144, 288, 32, 64, 64), (14, 528)),
    "4e": ((528, 256, 160, 320, 32, 128, 128), (14, 832)),
    "5a": ((832, 256, 160, 320, 32, 128, 128), (7, 832)),
    "5b": ((832, 384, 192, 384, 48, 128, 128), (7, 1024)),
}


def conv_parameters(inputs: int, outputs: int, kernel: int) -> int:
    return inputs * outputs * kernel**2 + outputs


def parameters_from_the_table(classes: int) -> int:
    total = conv_parameters(3, 64, 7) + conv_parameters(64, 64, 1) + conv_parameters(64, 192, 3)
    for (inputs, n1, r3, n3, r5, n5, pool), _ in TABLE_1.values():
        total += conv_parameters(inputs, n1, 1) + conv_parameters(inputs, pool, 1)
        total += conv_parameters(inputs, r3, 1) + conv_parameters(r3, n3, 3)
        total += conv_parameters(inputs, r5, 1) + conv_parameters(r5, n5, 5)
    return total + 1024 * classes + classes


def aux_parameters(inputs: int, classes: int) -> int:
    return conv_parameters(inputs, 128, 1) + (4 * 4 * 128 * 1024 + 1024) + (1024 * classes + classes)


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_parameters_follow_from_table_1() -> None:
    without = parameters_from_the_table(1000)
    assert without == 6_998_552
    assert count(GoogLeNet(aux_heads=False)) == without
    with_heads = without + aux_parameters(512, 1000) + aux_parameters(528, 1000)
    assert with_heads == 13_378_280
    assert count(GoogLeNet()) == with_heads


def test_every_row_of_table_1_has_its_output_size() -> None:
    model = GoogLeNet(num_classes=10).eval()
    sizes: dict[str, tuple[int, ...]] = {}
    for name, module in model.inception.items():
        module.register_forward_hook(lambda _m, _i, out, name=name: sizes.__setitem__(name, tuple(out.shape)))
    outputs = model(torch.zeros(1, 3, 224, 224))
    assert sizes == {name: (1, channels, side, side) for name, (_, (side, channels)) in TABLE_1.items()}
    assert outputs.logits.shape == (1, 10)


@pytest.mark.parametrize("variant", ["paper", "bn"])
@pytest.mark.parametrize("crop_px", [35, 84, 224])
def test_trains_at_every_crop_size(variant: str, crop_px: int) -> None:
    model = GoogLeNet(num_classes=5, variant=variant, width=0.25).train()  # type: ignore[arg-type]
    masks = model.draw_masks(2, torch.Generator().manual_seed(0))
    outputs = model(torch.randn(2, 3, crop_px, crop_px), masks)
    assert [tuple(head.shape) for head in outputs if head is not None] == [(2, 5)] * 3


def test_auxiliary_heads_hang_on_4a_and_4d_and_speak_only_in_training() -> None:
    model = GoogLeNet(num_classes=5, width=0.125, dropout=(0.0, 0.0))
    images = torch.randn(2, 3, 84, 84)
    inputs: dict[str, torch.Tensor] = {}
    for name in ("4a", "4d"):
        model.inception[name].register_forward_hook(lambda _m, _i, out, name=name: inputs.__setitem__(name, out))
    outputs = model.train()(images)
    assert outputs.aux_4a is not None
    assert torch.equal(outputs.aux_4a, model.aux["4a"](inputs["4a"]))
    assert outputs.aux_4d is not None
    assert torch.equal(outputs.aux_4d, model.aux["4d"](inputs["4d"]))
    evaluated = model.eval()(images)
    assert evaluated.aux_4a is None
    assert evaluated.aux_4d is None


def test_the_papers_auxiliary_head_pools_5x5_with_stride_3() -> None:
    """Check 14x14 maps against the windows of section 5, written out; adaptive pooling would use others."""
    head = GoogLeNet(num_classes=5).eval().aux["4a"]
    maps = torch.randn(2, 512, 14, 14, generator=torch.Generator().manual_seed(0))
    starts = (0, 3, 6, 9)
    windows = [[maps[:, :, y : y + 5, x : x + 5].mean(dim=(2, 3)) for x in starts] for y in starts]
    pooled = torch.stack([torch.stack(row, dim=-1) for row in windows], dim=-2)
    reduced = torch.einsum("nchw,oc->nohw", pooled, head.conv.conv.weight[:, :, 0, 0])
    features = (reduced + head.conv.conv.bias[:, None, None]).relu().flatten(1)
    hidden = (features @ head.hidden.weight.T + head.hidden.bias).relu()
    expected = hidden @ head.classifier.weight.T + head.classifier.bias
    torch.testing.assert_close(head(maps), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["caffe", "google"])
def test_local_response_norm_equals_pytorchs(name: str) -> None:
    constants = LRN_CONSTANTS[name]
    x = 50 * torch.randn(2, 24, 5, 5, generator=torch.Generator().manual_seed(0))
    reference = torch.nn.LocalResponseNorm(constants.size, constants.alpha, constants.beta, constants.k)
    torch.testing.assert_close(LocalResponseNorm(constants)(x), reference(x), rtol=1e-5, atol=1e-5)


def test_googles_lrn_constants_are_tensorflows_in_pytorchs_convention() -> None:
    x = 50 * torch.randn(1, 24, 1, 1, generator=torch.Generator().manual_seed(0))
    values = x.flatten().double()
    radius, alpha, beta, bias = 5, 1e-4, 0.5, 2.0  # of the released graph; TensorFlow does not divide alpha
    sums = [values[max(0, c - radius) : c + radius + 1].square().sum() for c in range(24)]
    expected = values / (bias + alpha * torch.stack(sums)) ** beta
    ours = LocalResponseNorm(LRN_CONSTANTS["google"])(x).flatten().double()
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_dropout_is_a_function_of_its_generator_and_keeps_the_mean() -> None:
    layer, ones = Dropout(0.7, features=1000).train(), torch.ones(100, 1000)
    first, again, other = (layer(ones, layer.draw(100, torch.Generator().manual_seed(seed))) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert abs((first == 0).float().mean().item() - 0.7) < 0.01
    assert abs(first.mean().item() - 1) < 0.02
    assert torch.equal(layer.eval()(ones), ones)
    with pytest.raises(ValueError, match=r"draw_masks\(len\(images\), generator\)"):
        layer.train()(ones)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "num_classes"),
        ({"variant": "v3"}, "variant"),
        ({"width": 0.0}, "width"),
        ({"lrn": "torch"}, "lrn"),
    ],
)
def test_wrong_arguments_are_named(unchecked_types: None, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GoogLeNet(**arguments)  # type: ignore[arg-type]


def test_too_small_images_are_refused() -> None:
    with pytest.raises(ValueError, match="too small"):
        GoogLeNet(num_classes=2, width=0.25)(torch.zeros(1, 3, 28, 28))


def test_an_image_without_a_batch_is_refused(unchecked_types: None) -> None:
    with pytest.raises(ValueError, match=r"got \(3, 64, 64\): of one image, pass image\[None\]"):
        GoogLeNet(num_classes=2, width=0.25)(torch.zeros(3, 64, 64))
