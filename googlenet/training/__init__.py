"""The training of section 6, from a record to a step of SGD. Imports network and images.

In reading order:

- ``patches``: the rectangle of an image that a sample shows
- ``augment``: one training sample, a pure function of its generator
- ``augment_tensors``: the same samples made on the device that trains
- ``epoch_order``: the order of an epoch, computed entry by entry
- ``crop_sizes``: the side of the crops by epoch
- ``loader``: one set of processes that loads batches for a whole training
- ``batches``: the batches of a training, for any number of processes and workers
- ``data_parallel``: several workers that take a step together
- ``learning_rate``: the learning rate by epoch
- ``optim``: SGD and Polyak averaging
- ``graphs``: the training step as a CUDA graph
- ``distillation``: the loss against a teacher's answers
- ``micro_batch``: the parts of a batch whose gradients are computed one after the other
- ``loop``: the training step: state in, state out
- ``health``: the alarm about heads that do not learn
"""
