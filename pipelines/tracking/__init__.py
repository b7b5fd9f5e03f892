"""Tracking: MLflow follows the run directory.

Reads: the whole run directory. Writes: an MLflow store, never the run. Door: ``follower.Tracker``. This is the only
wing that imports MLflow, and, except in ``ensemble_model``, only inside functions, since importing it takes seconds.

In reading order:

- ``follower``: a thread that sends what is new in the run directory
- ``failures``: reasons of failures, and repetition of what may succeed later
- ``store``: MLflow stores: URIs, connections, pages
- ``schema_version``: the store of an older or newer MLflow
- ``moved``: stores and run directories that were moved or copied
- ``runs``: the runs of a run directory in a store, and what is logged to them
- ``dataset``: the data set's name, inputs and tags
- ``curves``: metrics by epoch, step and time, each sent once
- ``sheets``: pictures of validation images with the answers of a replica, by epoch
- ``result``: provenance, cells of the table, artifacts
- ``notes``: descriptions of runs and models
- ``publish``: models and champion of a finished run
- ``model_identity``: which models of a run are logged and registered already
- ``models``: the ensemble and its replicas as models
- ``model_pages``: descriptions of models, and the links between their pages
- ``model_metrics``: errors of models on the models' pages
- ``graph_flavor``: a replica as a PyTorch graph, without pickle
- ``ensemble_model``: the code that MLflow keeps with the ensemble
- ``evaluation``: evaluations of other images
- ``commands``: commands to open, serve, ask and send a run
- ``fetch``: recipes, reports and job logs downloaded from MLflow
- ``recipe_option``: the recipe that --recipe names
- ``replay``: a run directory sent to any MLflow store
"""
