"""Limits of what is decoded, against files that would fill the memory."""

# Beyond 178 megapixels Pillow itself raises an error about a decompression bomb.
MAX_IMAGE_PIXELS = 178_956_970
MAX_IMAGE_BYTES = 256 << 20
# Images are scaled by their shorter side, so a strip would become enormous.
MAX_ASPECT_RATIO = 100
