"""One start of a command: options, terminal, Ray connection, and a record of what ran where.

Reads and writes: jobs/*.json, logs/, system/ and replicas/<k>/system/. Door: ``command_line.run_command`` for a
process, ``ray_session.connected`` for Ray.

In reading order:

- ``interpreter``: check, before the packages are imported, that Python has them and can start threads
- ``command_line``: what every command does first and last; errors in one line
- ``options``: options from the fields of dataclasses, and ``--help``
- ``option_groups``: groups of options in ``--help``
- ``option_values``: from words to numbers, choices and tuples
- ``console``: lines, durations, sizes and names as people read them
- ``run_option``: the run directory that a command is given
- ``interruption``: Ctrl-C, SIGTERM and a closed terminal end a command the same way
- ``time_left``: until all replicas are trained
- ``progress``: the live display, and the board that workers post to
- ``ray_address``: check of a cluster's address, which Ray itself would retry for minutes
- ``node_limits``: CPUs and memory that this process may use
- ``connection_limit``: a deadline while Ray connects, and Ctrl-C in time
- ``local_ray``: folder and token of a cluster on this machine, and why it did not start
- ``ray_session``: the connection to a cluster
- ``nodes``: how much a node holds, and which nodes are drained or lost
- ``repeating``: work that is repeated beside a block
- ``unplaced``: work that no node can hold yet: reported, and given up where that is better than waiting
- ``worker_process``: allocator settings and thread counts of processes that run networks, and what feeds them
- ``process_memory``: estimated memory of a worker and of a predictor
- ``log``: one file for each start, with seconds by stage and the outcome
- ``limits``: time and money of a run, and limits on both
- ``meter``: what a job uses, in its log while it runs
- ``circumstances``: provenance: commit, code digest, package versions, hardware
- ``system_log``: load of a node, sampled while it works
"""
