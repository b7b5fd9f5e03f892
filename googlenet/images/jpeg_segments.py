"""The segments in front of a JPEG's pixel data, and a JPEG without the ones that only describe it."""

from collections.abc import Iterator
from dataclasses import dataclass

START = b"\xff\xd8"
END_OF_IMAGE = b"\xff\xd9"
SOS, APP1, APP14, COMMENT = 0xDA, 0xE1, 0xEE, 0xFE
APPLICATION_MARKERS = range(0xE0, 0xF0)
# Kept: APP0 (JFIF) and APP14 (Adobe), which say what the channels mean.
DESCRIPTIONS = (*range(0xE1, 0xEE), 0xEF, COMMENT)
STANDALONE_MARKERS = (0x01, *range(0xD0, 0xD9))
EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


@dataclass(frozen=True)
class Segment:
    """One segment: its marker, the offset of the marker's 0xFF, and what follows the length."""

    marker: int
    at: int
    body: bytes

    @property
    def end(self) -> int:
        """Offset of the byte behind it."""
        return self.at + 4 + len(self.body)


@dataclass(frozen=True)
class PixelJpeg:
    """A JPEG with the segments that its pixels need.

    Attributes:
        data: the file; as it was, if its segments cannot be followed to the pixel data.
        exif: its Exif block, None if it has none.
        xmp: its XMP, empty if it has none.
        scan_at: offset of the pixel data in ``data``; None if there are none.
    """

    data: bytes
    exif: bytes | None
    xmp: bytes
    scan_at: int | None


def segments(data: bytes) -> Iterator[Segment]:
    """Yield the segments up to the first pixel data (``SOS``), or to where they cannot be followed."""
    if data[:2] != START:
        return
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in STANDALONE_MARKERS:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        yield Segment(marker, at, data[at + 4 : at + 2 + length])
        if marker == SOS:
            return
        at += 2 + length


def pixel_jpeg(data: bytes) -> PixelJpeg:
    """Return the file without its metadata."""
    kept, exif, xmp = [START], None, b""
    for segment in segments(data):
        if segment.marker == SOS:
            scan_at = sum(map(len, kept))
            return PixelJpeg(b"".join([*kept, data[segment.at :]]), exif, xmp, scan_at)
        if segment.marker not in DESCRIPTIONS:
            kept.append(data[segment.at : segment.end])
        elif segment.marker == APP1 and segment.body.startswith(EXIF):
            # A block of more than 64 KiB is continued in the next segment.
            exif = segment.body if exif is None else exif + segment.body.removeprefix(EXIF)
        elif segment.marker == APP1 and segment.body.startswith(XMP):
            xmp = segment.body.removeprefix(XMP)
    return PixelJpeg(data, exif, xmp, None)
