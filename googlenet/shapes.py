"""Shapes and types of arrays in annotations, from jaxtyping; the array's type alone where that is not installed.

Annotations are checked by the tests only. A machine with PyTorch, NumPy, OpenCV and Pillow is enough to train and to
evaluate on pixels in memory. JPEGs need simplejpeg as well, this project's files of weights safetensors, and shards
pyarrow.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float16, Float32, Float64, Int32, Int64, Integer, UInt8, UInt64

__all__ = ["Bool", "Float", "Float16", "Float32", "Float64", "Int32", "Int64", "Integer", "UInt8", "UInt64"]


class _Unchecked:
    """Stands for every type of jaxtyping: ``_Unchecked[Tensor, "n 3"]`` is ``Tensor``."""

    def __class_getitem__(cls, array_and_shape: tuple[Any, str]) -> Any:
        return array_and_shape[0]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import jaxtyping
    except ModuleNotFoundError:
        return _Unchecked
    return getattr(jaxtyping, name)
