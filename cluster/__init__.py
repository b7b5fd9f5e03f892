"""Launch files for clusters, and the command that submits the main job to one."""
