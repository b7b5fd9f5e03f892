"""From bytes to pixels, and images stored in shards. Imports no other wing.

In reading order:

- ``decoding``: bytes to RGB pixels, for every format and colour mode found in image folders
- ``pixel_file``: a file without its metadata, and its orientation; by format in ``jpeg_segments``, ``png`` and ``tiff``
- ``grey_levels``: grey values of more than 8 bits to 8 bits
- ``refusals``: why bytes cannot be decoded, in the user's words
- ``jpeg_damage``: missing pixel data of JPEGs
- ``inspection``: the check of an image before it becomes part of a data set
- ``jpeg``: partial decoding of JPEGs, bit-identical to a full decode
- ``scaled_image``: an image at the scales that its views need; free of PyTorch
- ``records``: random access to images in Parquet shards
"""
