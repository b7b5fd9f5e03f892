"""MLflow follows the run directory.

Reads: the whole run directory. Writes: an MLflow store, never the run. Door: ``follower.Tracker``. This is the only
wing that imports MLflow, and only inside functions, since importing it takes seconds.

In reading order:

- ``follower``: a thread that sends what is new in the run directory
- ``store``: an MLflow store, and the runs of a run directory in it
- ``curves``: metrics by epoch, step and time, each sent once
- ``result``: data set, provenance, cells of the table, artifacts
- ``notes``: descriptions of runs
- ``publish``: models and champion of a finished run
- ``models``: the ensemble and its replicas as models
- ``graph_flavor``: a replica as a PyTorch graph, without pickle
- ``ensemble_model``: the code that MLflow keeps with the ensemble
- ``fetch``: recipes, reports and job logs downloaded from MLflow
- ``replay``: a run directory sent to any MLflow store
"""
