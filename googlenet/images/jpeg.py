"""Partial decoding of JPEGs for training samples: no rows below the sample, and no more detail than it keeps.

Anything but an ordinary upright 8-bit JPEG in grey or colour is left to :mod:`googlenet.images.decoding`.
"""

import struct
from dataclasses import dataclass

import simplejpeg
from PIL import Image

from googlenet.images.decoding import Pixels

SOF_MARKERS = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive; all with Huffman codes
OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, *range(0xC9, 0xCC), *range(0xCD, 0xD0))
SOS, APP1 = 0xDA, 0xE1
END_OF_IMAGE = b"\xff\xd9"
STANDALONE_MARKERS = (0x01, *range(0xD0, 0xD9))
ORIENTATION_TAG, UPRIGHT = 0x0112, 1
BLOCK_PX = 8
# A row also depends on the colours of its neighbouring rows, which are stored at half the height.
CONTEXT_ROWS = 2
# The decoder compensates for missing passes of a progressive file by smoothing between blocks.
SMOOTHED_MCUS = 2


# A JPEG that averaging shrinks may be decoded to a half, quarter or eighth of its size if the result keeps at most half
# of that. Interpolations that pick single pixels need the full size.
DECODE_FACTORS = (8, 4, 2)
KEPT_REDUCTION = 2


@dataclass(frozen=True)
class JpegHeader:
    """Header fields that are needed before decoding.

    Attributes:
        width: in pixels.
        height: in pixels.
        mcu_height: rows that are coded together, 8 or more.
        height_at: offset of the height in the file, 2 bytes.
        is_progressive: whether it is coded in several passes.
    """

    width: int
    height: int
    mcu_height: int
    height_at: int
    is_progressive: bool


def decode_factor(reduction: float) -> int:
    """Return the factor of :func:`decode_rows` for an image that averaging then shrinks by ``reduction`` in total."""
    return next((factor for factor in DECODE_FACTORS if reduction >= KEPT_REDUCTION * factor), 1)


def read_header(data: bytes) -> JpegHeader | None:
    """Return the header of a JPEG that :func:`decode_rows` can decode; None for anything else."""
    if data[:2] != b"\xff\xd8":
        return None
    at, frame = 2, None
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in STANDALONE_MARKERS:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at + 4 : at + 2 + length]
        if marker == SOS:
            # Pillow has to reject a file whose end is missing: partial decoding would not report it.
            return frame if data.rfind(END_OF_IMAGE) > at else None
        if marker in SOF_MARKERS:
            if frame is not None or (frame := _frame(segment, at + 4, marker)) is None:
                return None
        elif marker in OTHER_FRAMES or (marker == APP1 and not _is_upright(segment)):
            return None
        at += 2 + length
    return None


def _frame(segment: bytes, at: int, marker: int) -> JpegHeader | None:
    if len(segment) < 6:
        return None
    precision, height, width, components = struct.unpack(">BHHB", segment[:6])
    if precision != 8 or components not in (1, 3) or not height or len(segment) < 6 + 3 * components:
        return None
    vertical = max(segment[7 + 3 * component] & 15 for component in range(components))
    return JpegHeader(width, height, BLOCK_PX * max(1, vertical), at + 1, marker == SOF_MARKERS[-1])


def _is_upright(segment: bytes) -> bool:
    """Return whether a metadata segment leaves the image as it is stored."""
    if not segment.startswith(b"Exif\0\0"):
        return b"Orientation" not in segment
    exif = Image.Exif()
    try:
        exif.load(segment)
        return bool(exif.get(ORIENTATION_TAG, UPRIGHT) == UPRIGHT)
    except Exception:  # noqa: BLE001  # if it is malformed, Pillow decides what the image is
        return False


def decode_rows(data: bytes, header: JpegHeader, bottom: int, factor: int = 1) -> Pixels:
    """Decode the rows above ``bottom`` and possibly a few more.

    At full size the pixels are bit-identical to a full decode. The height in the header is replaced by the one needed,
    so that the decoder stops where the sample ends.

    Args:
        data: the file.
        header: the file's header.
        bottom: number of rows needed.
        factor: 1, 2, 4 or 8: decode to this fraction of the size, by leaving out high frequencies.

    Returns:
        (rows / factor, width / factor, 3) uint8 RGB, both rounded up.

    Raises:
        ValueError: the file is damaged.
    """
    context = CONTEXT_ROWS + (SMOOTHED_MCUS * header.mcu_height if header.is_progressive else 0)
    rows = -(-(bottom + context) // header.mcu_height) * header.mcu_height
    is_cut = rows < header.height
    if is_cut:
        data = b"".join((data[: header.height_at], struct.pack(">H", rows), data[header.height_at + 2 :]))
    # The decoder would warn about the rest of a cut file; a complete one must have no errors.
    smallest = (-(-min(rows, header.height) // factor), -(-header.width // factor))
    pixels: Pixels = simplejpeg.decode_jpeg(
        data, "RGB", min_height=smallest[0], min_width=smallest[1], strict=not is_cut
    )
    return pixels
