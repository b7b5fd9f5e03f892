"""Speed and memory as ratios against a named peer or a limit, side by side in one run."""
