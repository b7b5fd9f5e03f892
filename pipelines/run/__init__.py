"""A run: its recipe, its directory, and every file that two stages share.

Reads and writes, for the other wings: run.json, run.lock, dataset/manifest.json, replicas/<k>/ without checkpoints,
predictions/*.parquet, view_probabilities/*.parquet, preflight.json, calibration.json, budget.json, soup/, teacher/.
Door: ``directory``, which defines what lies where.

In reading order:

- ``directory``: names of the files in a run directory
- ``json_lines``: files with one JSON object per line
- ``differences``: what differs between two settings, in lines
- ``claims``: a run directory bound to the settings and images that decide its result
- ``litter``: names that operating systems and tools leave in folders
- ``recipe``: every setting that decides a result
- ``field_values``: one spelling of each value of a recipe, and finite numbers only
- ``recipe_json``: recipes from JSON, also of earlier versions
- ``named_recipes``: the recipes ``paper``, ``demo``, ``modern``, ``finetune``, ``imagenette`` and ``distil``
- ``places``: paths and URIs as users write them
- ``json_object``: JSON objects, parsed from files that may be damaged
- ``storage``: files on any filesystem, written atomically
- ``concurrency``: work on many files, several at a time
- ``damaged_files``: damaged files, kept under another name
- ``uploads``: files written to remote filesystems, completely or not at all
- ``object_store``: filesystems behind URIs, with retries and readable errors
- ``published_files``: data sets on Hugging Face and on web servers, as read-only filesystems
- ``storage_failures``: failures of disks, servers and shards, found behind wrapped exceptions
- ``tables``: Parquet tables with checksums of their pages
- ``lock``: one job at a time on a run directory
- ``dataset``: the manifest of the prepared data set, and its shards
- ``sheet``: a few fixed validation images, and answers for them during training
- ``predictions``: prediction files, one row an image
- ``first_start``: the start of an evaluation that began the predictions
- ``view_probabilities``: probabilities of each view alone, for a share of the images
- ``calibration``: what was fitted on a run's validation images for its ensemble
- ``commands``: commands for a run, quoted for the shell
- ``budget``: the order of the views and the cascade, fitted on them
- ``soups``: averages of a run's replicas
- ``teacher``: the teacher of a student, and its answers in one file
- ``weights``: files of weights, read or refused by name
"""
