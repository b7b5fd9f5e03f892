"""The network of section 5 and its weights. Imports no other wing.

In reading order:

- ``table1``: Table 1 as data
- ``choices``: names of the variants, without PyTorch
- ``own_operations``: switch to operations of this project's own, for its training loop
- ``layers``: convolution, normalisation and dropout as the network uses them
- ``lean``: operations that keep little for their backward pass
- ``model``: GoogLeNet, variants ``paper`` and ``bn``, and batch normalisation folded away for inference
- ``shared_stem``: the first layers of a square's five crops, computed once where they overlap
- ``initialisation``: initial weights from a generator
- ``unit_variance``: initial weights scaled on a batch of images
- ``complexity``: parameters and multiply-adds, beside Table 1's
- ``preprocessing``: from pixels to the network's input; it belongs to the weights
- ``arithmetic``: numeric precision and compilation of a network
- ``weights``: weights with everything needed to use them, as safetensors
- ``renaming``: layers of other frameworks under this project's names
- ``protobuf``: protocol buffers by field number
- ``caffe_files``: Caffe's GoogLeNet as .npz, .caffemodel and .onnx
- ``download``: a published file, resumed and checked by its digest
- ``hub``: files of the Hugging Face Hub by name, without PyTorch
- ``published``: published weights by name
- ``weight_files``: weights from files of every kind by suffix, and by name; and into a file
"""
