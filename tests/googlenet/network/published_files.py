"""The files in which GoogLeNet's weights are published, written here from arrays named as in Caffe's .npz."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from tests.googlenet.network.test_weight_files import BVLC, NO_BVLC, caffe_arrays

Arrays = dict[str, npt.NDArray[np.float32]]


def arrays_of(source: str) -> Arrays:
    """Return the published weights (``bvlc``) or random ones; skip the test if the published ones are not here."""
    if source == "random":
        return caffe_arrays()
    if not BVLC.exists():
        pytest.skip(NO_BVLC)
    with np.load(BVLC) as published:
        return dict(published)


def with_heads(arrays: Arrays, seed: int = 1) -> Arrays:
    """Return the arrays and random ones for the two auxiliary heads, as Caffe's own file has them."""
    generator, classes = np.random.default_rng(seed), len(arrays["loss3/classifier/bias"])
    heads = {}
    for loss, channels in (("loss1", 512), ("loss2", 528)):
        for layer, shape in (("conv", (128, channels, 1, 1)), ("fc", (1024, 2048)), ("classifier", (classes, 1024))):
            heads[f"{loss}/{layer}/weight"] = generator.normal(0, 0.02, shape).astype(np.float32)
            heads[f"{loss}/{layer}/bias"] = generator.normal(0, 0.02, shape[0]).astype(np.float32)
    return arrays | heads


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def chunk(number: int, data: bytes) -> bytes:
    """A field of bytes, text or a message."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def integer(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def caffemodel_v1(arrays: Arrays) -> bytes:
    """As Caffe wrote it in 2014: `layers`, blobs of four dimensions, and layers without blobs in between."""

    def blob(array: npt.NDArray[np.float32]) -> bytes:
        shape = (1,) * (4 - array.ndim) + array.shape
        sides = b"".join(integer(number, side) for number, side in enumerate(shape, start=1))
        return sides + chunk(5, array.astype("<f4").tobytes())

    relu = chunk(2, chunk(4, b"relu") + integer(5, 18))
    return _caffemodel(arrays, 2, 4, 6, blob, relu)


def caffemodel_v2(arrays: Arrays) -> bytes:
    """As later versions write it: `layer`, blobs with a shape; some of them with doubles, or with gradients."""

    def blob(array: npt.NDArray[np.float32]) -> bytes:
        shape = chunk(7, chunk(1, b"".join(map(varint, array.shape))))
        doubles = array.ndim == 1
        values = chunk(8, array.astype("<f8").tobytes()) if doubles else chunk(5, array.astype("<f4").tobytes())
        return chunk(6, b"\0\0\0\0") + values + shape

    data_layer = chunk(100, chunk(1, b"data") + chunk(2, b"Data"))
    return _caffemodel(arrays, 100, 1, 7, blob, data_layer)


def _caffemodel(
    arrays: Arrays, layers: int, name: int, blobs: int, blob: Callable[[npt.NDArray[np.float32]], bytes], other: bytes
) -> bytes:
    parts = [chunk(1, b"GoogleNet"), other]
    for layer in dict.fromkeys(key.rpartition("/")[0] for key in arrays):
        own = [chunk(blobs, blob(arrays[f"{layer}/{kind}"])) for kind in ("weight", "bias")]
        parts.append(chunk(layers, chunk(name, layer.encode()) + b"".join(own)))
    return b"".join(parts)


def zoo_onnx(arrays: Arrays, classifier: str = "Gemm transB", raw: bool = True) -> bytes:
    """As in the ONNX model zoo: initialisers with Caffe's names, integers among them, and the classifier's operator.

    Biases are lists of floats unless they are to be ``raw`` bytes.
    """
    from onnx import TensorProto, helper, numpy_helper

    weights = {f"{name.rpartition('/')[0]}_{name.rpartition('/')[2][0]}_0": array for name, array in arrays.items()}
    if classifier != "Gemm transB":
        weights["loss3/classifier_w_0"] = np.ascontiguousarray(weights["loss3/classifier_w_0"].T)
    tensors = [
        numpy_helper.from_array(array, name)
        if raw or array.ndim > 1
        else helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.ravel())
        for name, array in weights.items()
    ]
    tensors.append(numpy_helper.from_array(np.array([1, 1024], np.int64), "OC2_DUMMY_1"))
    tensors.append(numpy_helper.from_array(np.array(0.4, np.float32), "dropout_ratio"))
    convolutions = [
        helper.make_node("Conv", ["x", name, f"{name[: -len('_w_0')]}_b_0"], ["y"])
        for name, array in weights.items()
        if array.ndim == 4
    ]
    last = ["x", "loss3/classifier_w_0", "loss3/classifier_b_0"]
    if classifier == "MatMul":
        operator = helper.make_node("MatMul", last[:2], ["logits"])
    else:
        operator = helper.make_node("Gemm", last, ["logits"], transB=int(classifier == "Gemm transB"))
    graph = helper.make_graph([*convolutions, operator], "googlenet", [], [], tensors)
    return bytes(helper.make_model(graph).SerializeToString())
