"""The C allocator's settings for processes that run networks."""

# glibc gives large blocks back to the system at once, and the system hands them out again page by page: at 224 px that
# took more than half of the time of a forward pass in batches of 144 (benchmarks/allocator.py). These settings keep
# freed memory for the next activations. They have to be in the environment when a process starts, since Ray runs its
# work in threads, and only an allocator with a single arena serves those like the main thread. Others than glibc
# ignore them.
KEEP_FREED_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**62),
}
