"""Files of Caffe's GoogLeNet: .npz, Caffe's own .caffemodel, and the ONNX model zoo's .onnx.

All of them name layers as Caffe's prototxt does, and need its preprocessing. The auxiliary heads are in the
.caffemodel only.
"""

import io
import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from googlenet.network.preprocessing import CAFFE_PREPROCESSING
from googlenet.network.protobuf import Message, ProtobufError
from googlenet.network.renaming import renamed
from googlenet.network.table1 import AUX_POSITIONS, INCEPTION_CHANNELS
from googlenet.network.weights import StoredNetwork, WeightsError

Array = npt.NDArray[np.floating]

BRANCHES = {
    "1x1": "conv_1x1",
    "3x3_reduce": "conv_3x3_reduce",
    "3x3": "conv_3x3",
    "5x5_reduce": "conv_5x5_reduce",
    "5x5": "conv_5x5",
    "pool_proj": "pool_proj",
}
PARAMETERS = ("weight", "bias")
# None of these files says how its network was fed.
ASSUMED_MEAN = (
    "pixels are taken as those of Caffe's GoogLeNet, BGR minus ImageNet's mean (104, 117, 123); if the network was "
    "trained with another mean, see docs/training.md#given-weights"
)
REAL_NUMBERS = "fiu"
AGAIN = "copy or download it again"
# What NumPy, zipfile and its decompressors raise for damaged archives: RuntimeError where a flag says encrypted, or as
# NotImplementedError for an unknown compression.
DAMAGED_ARCHIVE = (
    ValueError, TypeError, OSError, EOFError, RuntimeError, struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile
)  # fmt: skip

# caffe.proto: the fields of NetParameter with its layers, and in these the fields of the name and the blobs.
V2_LAYERS, V1_LAYERS = (100, 1, 7), (2, 4, 6)
# BlobProto. Old files have four numbers in place of a shape.
BLOB_FLOATS, BLOB_DOUBLES, BLOB_SHAPE, BLOB_OLD_SHAPE = 5, 8, 7, (1, 2, 3, 4)

# onnx.proto: ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto.
MODEL_GRAPH, GRAPH_NODE, GRAPH_INITIALIZER = 7, 1, 5
NODE_INPUT, NODE_KIND, NODE_ATTRIBUTE, ATTRIBUTE_NAME, ATTRIBUTE_INTEGER = 1, 4, 5, 1, 3
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME, TENSOR_RAW, TENSOR_PLACE = 1, 2, 8, 9, 14
# By TensorProto.DataType: the type of raw data, and the field with the values if they are not raw.
ONNX_FLOATS = {1: ("<f4", 4), 10: ("<f2", None), 11: ("<f8", 10)}
ONNX_BYTES = (2, 3)
# The ends of the names in the model zoo's files.
ONNX_PARAMETERS = {"_w_0": "weight", "_b_0": "bias"}


def read_npz(data: bytes) -> StoredNetwork:
    """Read arrays named ``<Caffe layer>/weight`` and ``<Caffe layer>/bias``, convolutions OIHW.

    Raises:
        WeightsError: not such a file, or its layers are not those of this network.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            stored = {name: arrays[name] for name in arrays.files}
    except DAMAGED_ARCHIVE as error:
        # Of what is no ZIP archive, NumPy says that it may hold pickled objects, and how they could be loaded.
        reason = f": {error}" if zipfile.is_zipfile(io.BytesIO(data)) else ""
        raise WeightsError(f"not a complete .npz file{reason}; {AGAIN}") from error
    return _network({name: _numbers(value, name) for name, value in stored.items()})


def read_caffemodel(data: bytes) -> StoredNetwork:
    """Read what Caffe's training wrote, with layer messages of either version.

    Raises:
        WeightsError: not such a file, or its layers are not those of this network.
    """
    named: dict[str, Array] = {}
    try:
        net = Message(data)
        for layers, name_field, blobs_field in (V1_LAYERS, V2_LAYERS):
            for layer in net.messages(layers):
                name = layer.text(name_field)
                for number, blob in enumerate(layer.messages(blobs_field)):
                    parameter = PARAMETERS[number] if number < len(PARAMETERS) else f"blob_{number}"
                    named[f"{name}/{parameter}"] = _blob(blob, f"{name}/{parameter}")
    except ProtobufError as error:
        raise WeightsError(f"not a complete .caffemodel file: {error}; {AGAIN}") from error
    return _network(named)


def read_onnx(data: bytes) -> StoredNetwork:
    """Read the weights of the ONNX model zoo's GoogLeNet: its initialisers, named ``<Caffe layer>_w_0`` and ``_b_0``.

    Raises:
        WeightsError: not such a file, or its layers are not those of this network.
    """
    named: dict[str, Array] = {}
    try:
        graphs = Message(data).messages(MODEL_GRAPH)
        if len(graphs) != 1:
            raise WeightsError(f"not a complete .onnx file: it has no graph; {AGAIN}")
        transposed = _transposed_weights(graphs[0])
        for tensor in graphs[0].messages(GRAPH_INITIALIZER):
            name, array = tensor.text(TENSOR_NAME), _onnx_array(tensor)
            if array is None:
                continue
            layer, parameter = name[: -len("_w_0")], ONNX_PARAMETERS.get(name[-len("_w_0") :])
            if parameter:
                named[f"{layer}/{parameter}"] = array.T if name in transposed else array
            elif array.size > 1:  # the dropout rate of newer files is a single number
                named[name] = array
    except ProtobufError as error:
        raise WeightsError(f"not a complete .onnx file: {error}; {AGAIN}") from error
    return _network(named)


def _numbers(value: Any, name: str) -> Array:
    # Of a file in a .npz that is no array, NumPy returns the bytes.
    if not isinstance(value, np.ndarray) or value.dtype.kind not in REAL_NUMBERS:
        raise WeightsError(f"layer {name} holds no numbers")
    return value.astype(np.float32)


def _blob(blob: Message, name: str) -> Array:
    floats = blob.floats(BLOB_FLOATS, "<f4")
    values = floats if floats.size else blob.floats(BLOB_DOUBLES, "<f8")
    shapes = blob.messages(BLOB_SHAPE)
    shape = shapes[-1].integers(1) if shapes else [blob.integer(field) for field in BLOB_OLD_SHAPE]
    return _shaped(values, shape, name)


def _onnx_array(tensor: Message) -> Array | None:
    """Return the values of an initialiser; None if it holds integers, such as the shape for a reshaping."""
    name, kind = tensor.text(TENSOR_NAME), tensor.integer(TENSOR_TYPE)
    if tensor.integer(TENSOR_PLACE):
        raise WeightsError(f"initialiser {name} lies in another file: save the model as one file")
    if kind in ONNX_BYTES:
        raise WeightsError(f"initialiser {name} is quantised: take the model's file without -int8 or -qdq in its name")
    if kind not in ONNX_FLOATS:
        return None
    dtype, field = ONNX_FLOATS[kind]
    values = tensor.floats(TENSOR_RAW, dtype)
    if field and not values.size:
        values = tensor.floats(field, dtype)
    return _shaped(values, tensor.integers(TENSOR_DIMS), name)


def _shaped(values: Array, shape: list[int], name: str) -> Array:
    if values.size != math.prod(shape):
        raise WeightsError(f"layer {name} holds {values.size} values, its shape is {tuple(shape)}")
    return values.reshape(shape)


def _transposed_weights(graph: Message) -> set[str]:
    """Return the names of the weights that are stored as (inputs, outputs), by the operators that use them."""
    transposed = set()
    for node in graph.messages(GRAPH_NODE):
        kind, inputs = node.text(NODE_KIND), node.texts(NODE_INPUT)
        attributes = {a.text(ATTRIBUTE_NAME): a.integer(ATTRIBUTE_INTEGER) for a in node.messages(NODE_ATTRIBUTE)}
        if kind == "MatMul" or (kind == "Gemm" and not attributes.get("transB")):
            transposed.update(inputs[1:2])
    return transposed


def _network(arrays: dict[str, Array]) -> StoredNetwork:
    """Return the network of arrays named as in the .npz file."""
    layers = dict(_layer_names())
    tensors = {}
    for name, array in arrays.items():
        layer, _, parameter = name.rpartition("/")
        dimensions = _dimensions(layers[layer], parameter) if layer in layers else array.ndim
        tensors[name] = torch.from_numpy(np.array(_without_leading_ones(array, dimensions), np.float32, order="C"))
    named = renamed(tensors, layers, separator="/")
    return StoredNetwork(named, "paper", 1.0, "caffe", CAFFE_PREPROCESSING, assumption=ASSUMED_MEAN)


def _dimensions(layer: str, parameter: str) -> int:
    if parameter == "bias":
        return 1
    return 4 if layer.endswith(".conv") else 2


def _without_leading_ones(array: Array, dimensions: int) -> Array:
    """Return an array of old Caffe, where every blob has four dimensions, with as many as its layer has."""
    ones = array.shape[: max(array.ndim - dimensions, 0)]
    return array.reshape(array.shape[len(ones) :]) if set(ones) == {1} else array


def _layer_names() -> Iterator[tuple[str, str]]:
    """Yield the name of each layer there and here."""
    yield "conv1/7x7_s2", "conv1.conv"
    yield "conv2/3x3_reduce", "conv2_reduce.conv"
    yield "conv2/3x3", "conv2.conv"
    for row in INCEPTION_CHANNELS:
        for theirs, ours in BRANCHES.items():
            yield f"inception_{row}/{theirs}", f"inception.{row}.{ours}.conv"
    for number, position in enumerate(AUX_POSITIONS, start=1):
        yield f"loss{number}/conv", f"aux.{position}.conv.conv"
        yield f"loss{number}/fc", f"aux.{position}.hidden"
        yield f"loss{number}/classifier", f"aux.{position}.classifier"
    yield "loss3/classifier", "classifier"
