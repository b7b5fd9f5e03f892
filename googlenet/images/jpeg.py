"""Partial decoding of JPEGs for training samples: no rows below the sample, and no more detail than it keeps.

Anything but an ordinary upright 8-bit JPEG in grey or colour is left to :mod:`googlenet.images.decoding`.
"""

import struct
from dataclasses import dataclass

from googlenet.images.decoding import Pixels
from googlenet.images.jpeg_segments import APP1, APP14, END_OF_IMAGE, EXIF, SOS, Segment, segments
from googlenet.images.pixel_file import UPRIGHT, orientation_of

SOF_MARKERS = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive; all with Huffman codes
OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, *range(0xC9, 0xCC), *range(0xCD, 0xD0))
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
    frame, has_exif = None, False
    for segment in segments(data):
        if segment.marker == SOS:
            # Pillow has to reject a file whose end is missing: partial decoding would not report it.
            return frame if data.rfind(END_OF_IMAGE) > segment.at else None
        if segment.marker in SOF_MARKERS:
            if frame is not None or (frame := _frame(segment)) is None:
                return None
        elif segment.marker in OTHER_FRAMES:
            return None
        elif segment.marker == APP1:
            is_exif = segment.body.startswith(EXIF)
            # A second Exif block continues the first one.
            if (is_exif and has_exif) or not _is_upright(segment.body):
                return None
            has_exif |= is_exif
    return None


def may_store_rgb(data: bytes) -> bool:
    """Return whether a JPEG may store red, green and blue in place of luminance and colour.

    Software from outside libjpeg, such as a GPU's decoder, may not look for that.
    """
    frame, adobe = b"", b""
    for segment in segments(data):
        if segment.marker in SOF_MARKERS:
            frame = segment.body
        elif segment.marker == APP14 and segment.body.startswith(b"Adobe"):
            adobe = segment.body
    is_colour, names, transform = frame[5:6] == b"\3", frame[6:15:3], adobe[11:12]
    return is_colour and (names == b"RGB" or transform == b"\0")


def _frame(segment: Segment) -> JpegHeader | None:
    body = segment.body
    if len(body) < 6:
        return None
    precision, height, width, components = struct.unpack(">BHHB", body[:6])
    if precision != 8 or components not in (1, 3) or not height or len(body) < 6 + 3 * components:
        return None
    vertical = max(body[7 + 3 * component] & 15 for component in range(components))
    height_at = segment.at + 5
    return JpegHeader(width, height, BLOCK_PX * max(1, vertical), height_at, segment.marker == SOF_MARKERS[-1])


def _is_upright(body: bytes) -> bool:
    """Return whether a metadata segment leaves the image as it is stored."""
    if not body.startswith(EXIF):
        return b"Orientation" not in body
    return orientation_of(body, b"").number == UPRIGHT


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
    import simplejpeg

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
