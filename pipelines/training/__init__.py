"""Training: from shards to the weights of each replica.

Reads: dataset/, initial_weights*, teacher/; for the plan also predictions/. Writes: replicas/<k>/, training.json,
initial_weights*. Door: ``scheduler.train_replicas``.

In reading order:

- ``stage``: the stage as the job calls it
- ``scheduler``: replicas in a window as wide as the cluster holds
- ``board``: what scheduler and workers tell each other
- ``restarts``: how often a failed replica is restarted, and when
- ``trainer``: one replica, or several in turn, as a Ray Train job
- ``handover``: the next replica for a worker that has trained one
- ``reservation``: a note of what a trainer has reserved, so that it can be freed
- ``ray_reports``: metrics of epochs for Ray Train's own record
- ``replica``: one replica, from records to weights
- ``compilation``: the network that steps call, compiled while that works, and CUDA graphs of steps
- ``task``: parameters of a worker: which replica, from what, into where
- ``failure``: outcome of a failed attempt
- ``advice``: options to try when a replica does not learn
- ``validation``: errors on validation images during training
- ``validation_plan``: how often to validate, and on which images
- ``sheet_writer``: answers for a few fixed validation images during training
- ``epoch_report``: sums and step log of an epoch
- ``checkpoints``: the newest few checkpoints of a replica, written beside the training
- ``saving``: when a checkpoint is due, and what is in it
- ``notice``: notice that a replica has to end soon
- ``network``: the network that a recipe describes, and its initial weights
- ``scaled_weights``: initial weights that are scaled on training images
- ``options``: options of the workers
- ``resources``: resources reserved per worker, and how many replicas fit
- ``unused_gpus``: GPUs that replicas leave unused, and the options that would use them
- ``trial``: a few timed steps
- ``trial_images``: times of images in a trial
- ``trial_workers``: end of a trial's actors, and what ended them early
- ``timing``: how long calls are timed
- ``arithmetic_choice``: precision and compilation of a run, from a trial
- ``targets_plan``: what is left of a student's targets, and the teacher's networks that answer
- ``prediction_plan``: time of a teacher's answers, of the evaluation and of soups
- ``storage_plan``: what a run writes
- ``time_estimate``: time of the rest of a job, from a trial
- ``plan``: replicas, steps, time and storage in lines, before a job starts
- ``shard_cache``: copies of remote shards on a node's disk
"""
