"""Decoding of bytes to pixels, and images stored in shards. Imports no other wing.

In reading order:

- ``decoding``: bytes to RGB pixels, for every format and colour mode found in image folders
- ``limits``: what is too large to be decoded
- ``pixel_file``: a file without its metadata, and its orientation
- ``jpeg_segments``: the segments of a JPEG
- ``png``: the chunks of a PNG, and its transparent colour
- ``tiff``: the tags of a TIFF file or an Exif block
- ``grey_levels``: grey values of more than 8 bits to 8 bits
- ``refusals``: why bytes cannot be decoded, in the user's words
- ``jpeg_damage``: missing pixel data of JPEGs
- ``inspection``: the check of an image before it becomes part of a data set
- ``jpeg``: partial decoding of JPEGs, bit-identical to a full decode
- ``scaled_image``: an image at the scales that its views need; free of PyTorch
- ``record``: one stored image, and the interface of many
- ``image_index``: where in a shard each image lies
- ``open_shards``: shards kept open for reads of single images
- ``rereading``: files that look damaged are read again
- ``records``: random access to images in Parquet shards
"""
