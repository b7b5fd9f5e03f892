"""Missing and surplus pixel data of JPEGs, found by libjpeg's warnings.

Pillow hides the warnings, and fills what is missing with grey. The check decodes to an eighth of the size, which reads
all pixel data but computes few pixels.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from googlenet.images.jpeg_segments import APPLICATION_MARKERS, END_OF_IMAGE, SOS, START, PixelJpeg, segments
from googlenet.images.limits import MAX_IMAGE_PIXELS

# Warnings about pixel data; others are about headers.
DAMAGE = ("Corrupt JPEG data", "Premature end of JPEG file")
SURPLUS_BEFORE_END = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
NO_END = "the end marker is missing"
# libjpeg counts fewer bytes as left over than there are, by those that it has read ahead.
MAX_BYTES_READ_AHEAD = 16
SURPLUS = "surplus bytes follow the pixel data"
# Decoded values of pixels without data: the middle of the range, for CMYK possibly inverted.
FILLERS = (127, 128)
# Less than this share of a picture is not given as a percentage.
SMALLEST_SHARE = 0.005


class Condition(Enum):
    """State of the pixel data of a JPEG."""

    WHOLE = auto()
    WHOLE_WITH_WARNING = auto()
    DAMAGED = auto()
    UNKNOWN = auto()
    """libjpeg does not decode it; Pillow might, or gives the reason."""


@dataclass(frozen=True)
class Finding:
    """The condition of a JPEG's pixel data, and what is peculiar about them in words."""

    condition: Condition
    text: str = ""


def check_pixel_data(jpeg: PixelJpeg) -> Finding:
    """Return the condition of the pixel data, by libjpeg's first warning."""
    scan = _Scan.of(jpeg)
    if scan is None:
        return Finding(Condition.UNKNOWN)
    warning = scan.warning(scan.data)
    if warning is None:
        return Finding(Condition.WHOLE)
    if not warning.startswith(DAMAGE):
        return Finding(Condition.UNKNOWN)
    if scan.has_end and scan.has_only_surplus():
        return Finding(Condition.WHOLE_WITH_WARNING, SURPLUS)
    if completed_jpeg(jpeg) is not None:
        return Finding(Condition.WHOLE_WITH_WARNING, NO_END)
    return Finding(Condition.DAMAGED, scan.describe_damage(warning))


def completed_jpeg(jpeg: PixelJpeg) -> bytes | None:
    """Return a JPEG whose end marker is missing with the marker; None if it has one, or lacks pixel data as well."""
    scan = _Scan.of(jpeg)
    if scan is None or scan.has_end:
        return None
    for dropped in (_zeros_at_end(jpeg.data), 0):
        if scan.warning(scan.body[: len(scan.body) - dropped] + END_OF_IMAGE) is None:
            return jpeg.data[: len(jpeg.data) - dropped] + END_OF_IMAGE
    return None


@dataclass(frozen=True)
class _Scan:
    """Tables and pixel data, without the segments that libjpeg might warn of instead.

    ``body`` ends before the end marker, if there is one (``has_end``).
    """

    data: bytes
    body: bytes
    has_end: bool
    colours: str

    @classmethod
    def of(cls, jpeg: PixelJpeg) -> "_Scan | None":
        import simplejpeg

        if jpeg.scan_at is None:
            return None
        tables = [jpeg.data[s.at : s.end] for s in segments(jpeg.data) if s.marker not in (SOS, *APPLICATION_MARKERS)]
        header = b"".join([START, *tables])
        data = header + jpeg.data[jpeg.scan_at :]
        end = data.find(END_OF_IMAGE, len(header))
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        except ValueError:  # of a kind that it cannot decode; Pillow might
            return None
        if height * width > MAX_IMAGE_PIXELS:  # libjpeg would reserve memory for all coefficients
            return None
        return cls(data, data[:end] if end >= 0 else data, end >= 0, "CMYK" if colours in ("CMYK", "YCCK") else "GRAY")

    def warning(self, data: bytes) -> str | None:
        """Return libjpeg's first warning or its error; None if there is none."""
        import simplejpeg

        try:
            simplejpeg.decode_jpeg(data, self.colours, min_height=1, min_width=1)
        except ValueError as error:
            return str(error)
        return None

    def has_only_surplus(self) -> bool:
        """Return whether all pixels are there, and bytes are left over before the end marker.

        Zeros that were left over must not be the rest of zeros that were taken for pixel data.
        """
        body, unused_zeros = self.body, _zeros_at_end(self.body) - MAX_BYTES_READ_AHEAD
        while surplus := SURPLUS_BEFORE_END.fullmatch(warning := self.warning(body + END_OF_IMAGE) or ""):
            body = body[: -int(surplus[1])]
        return not warning and unused_zeros <= len(self.body) - len(body)

    def describe_damage(self, warning: str) -> str:
        """Return in words what is missing."""
        state = "damaged" if self.has_end else "truncated"
        share = self._missing_share()
        if share >= SMALLEST_SHARE:
            return f"{state}: the last {100 * share:.0f} % of the picture is missing"
        return f"{state}: some of its pixel data are missing or wrong (libjpeg: {warning})"

    def _missing_share(self) -> float:
        """Return the share of the picture that libjpeg filled with grey; 0 if every part has some data."""
        import simplejpeg

        cut = self.body.rstrip(b"\0") + END_OF_IMAGE
        try:
            pixels = simplejpeg.decode_jpeg(cut, self.colours, min_height=1, min_width=1, strict=False)
        except ValueError:  # not a single row can be decoded
            return 1.0
        flat = pixels.reshape(-1, pixels.shape[-1])
        if not np.isin(flat[-1], FILLERS).all():
            return 0.0
        present = np.flatnonzero((flat != flat[-1]).any(axis=1))
        return float(1 - (present[-1] + 1) / len(flat)) if present.size else 1.0


def _zeros_at_end(data: bytes) -> int:
    return len(data) - len(data.rstrip(b"\0"))
