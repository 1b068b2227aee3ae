"""What runs an experiment: the loop, its folder, its reports.

Nothing that research code calls imports from here; only this room, `init` and the
commands see a config, and it alone writes files.
"""
