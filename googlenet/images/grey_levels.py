"""Grey values of more than 8 bits to 8 bits, by a stated rule for what white is.

Values of 12 and 16 bits, and signed ones of 8: white is the largest number of that type. Values of 32 bits and
floating-point values have no agreed white: it is the one of :data:`WHITES` that the brightest values reach. Pictures
whose brightest values lie far from all of them are refused. Values that are not finite never count: NaN and minus
infinity are black, infinity is white.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

FLOAT, SIGNED, UNSIGNED = "float", "signed", "unsigned"
WHITES = {
    FLOAT: (1.0, 255.0, 65535.0),
    SIGNED: (255.0, 65535.0, 2.0**31 - 1),
    UNSIGNED: (255.0, 65535.0, 2.0**32 - 1),
}
# One pixel in a thousand may be brighter than what counts as the brightest: defects, reflections.
BRIGHTEST_PERCENTILE = 99.9
# The brightest values lie between these multiples of white. For the smallest white there is no lower limit.
DARKEST, LIGHTEST = 1 / 16, 1.5

Values = npt.NDArray[Any]


class UnknownWhiteError(ValueError):
    """The values do not say which of them is white."""


def white_of(values: Values, kind: str) -> float:
    """Return the value of white of a picture with 32-bit or floating-point values.

    Raises:
        UnknownWhiteError: the brightest values are far from every white.
    """
    finite = values[np.isfinite(values)]
    # "lower": of a picture with less than a thousand pixels, the brightest one never counts.
    brightest = float(np.percentile(finite, BRIGHTEST_PERCENTILE, method="lower")) if finite.size else 0.0
    whites = WHITES[kind]
    for white in whites:
        if brightest <= LIGHTEST * white and (white == whites[0] or brightest >= DARKEST * white):
            return white
    numbers = ", ".join(f"{white:.0f}" for white in whites[:-1]) + f" or {whites[-1]:.0f}"
    raise UnknownWhiteError(
        f"its brightest values are about {brightest:g}, so it is not clear which value is white; rescale them so that "
        f"white is {numbers}, or save it with 8 or 16 bits"
    )


def to_8_bit(values: Values, white: float, is_white_zero: bool = False) -> npt.NDArray[np.uint8]:
    """Scale values so that 0 is black and ``white`` is white, or the other way round."""
    scaled = values.astype(np.float64) * 255 / white
    if is_white_zero:
        scaled = 255 - scaled
    scaled = np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
