"""The evaluation of section 7: 144 views, the ensemble, and its errors. Imports network and images.

In reading order:

- ``crops``: the 144 views as geometry
- ``views``: the pixels of the views, on any device
- ``resizing``: windows resized on any device, bit for bit as on a CPU
- ``averages``: averages over views, computed on the device
- ``ahead``: the next element prepared by a thread
- ``stem_sharing``: all windows of an image through a network, with the first layers shared between a square's crops
- ``predictor``: all views of an image through all replicas
- ``ensemble``: an ensemble as one object: images in, answers out; and as one module, for export
- ``given_image``: pixels of an image in any form: a path, bytes, a PIL image, an array
- ``pretrained``: exported ensembles, in a folder or on Hugging Face
- ``metrics``: errors of every ensemble, with bootstrap intervals over images
- ``soup``: networks averaged into one
- ``two_way``: bootstrap intervals over images and replicas
- ``calibration``: likelihood, Brier score and calibration error
- ``temperature``: probabilities that mean what they say, fitted on some images and judged on others
- ``conformal``: sets of classes that hold the label with a chosen probability
- ``view_order``: the order in which views help most, and how many windows its first views need
- ``cascade``: adding replicas and views until the answer is sure enough, judged on other images
- ``stop_rule``: the threshold at which a cascade loses hardly any answer, chosen on some images for others
- ``kept_budget``: the order of the views and the cascade of a run, for use on other images
- ``early_predictor``: prediction that stops early
- ``kept_calibration``: temperatures and scores fitted on validation images, for use on others
- ``selective``: the error that remains if the least sure images are not answered
- ``out_of_distribution``: scores of measures that tell images of something else apart
- ``diversity``: disagreement between replicas, and the gain from it
"""
