"""Hypothesis for every folder: no deadline, because a loaded machine is not a failure, and the same examples each run."""

from hypothesis import settings

settings.register_profile("culvert", deadline=None, derandomize=True)
settings.load_profile("culvert")
