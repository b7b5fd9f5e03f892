"""Prediction: from weights to the probabilities of every view.

Reads: dataset/, replicas/<k>/weights.safetensors; of a run that answers or teaches, calibration.json, budget.json and
report/report.json. Writes: predictions/*.parquet, view_probabilities/*.parquet,
preflight.json, soup/, teacher/. Door: ``evaluate.evaluate_run``.

In reading order:

- ``evaluate``: preflight and predictions of an ensemble
- ``options``: options of an evaluation, and which of them go together
- ``answer_options``: what options need that a run may not have kept
- ``other_images``: a run's replicas on other images: which answer with what, and where that is kept
- ``external_weights``: weights from other sources, and what they must agree on
- ``kept_beside``: the calibration that lies beside such weights
- ``preflight``: choice of precision and compilation
- ``arithmetic_trial``: speed and answers of an arithmetic on some of the images
- ``cost``: time and storage of the evaluation, in words
- ``predictors``: how many predictors the cluster holds, and what each reserves
- ``sharded_prediction``: shards of images to files of predictions (Ray Data)
- ``soups``: averages of the replicas' weights, chosen, written and predicted
- ``targets``: a teacher's answers on the training images, for a student to learn
"""
