"""From bytes to pixels, and images stored in shards. Imports no other wing.

In reading order:

- ``decoding``: bytes to RGB pixels, for every format and colour mode found in image folders
- ``jpeg``: partial decoding of JPEGs, bit-identical to a full decode
- ``scaled_image``: an image at the scales that its views need; free of PyTorch
- ``records``: random access to images in Parquet shards
"""
