"""Hypothesis for every folder: the same examples each run, and no deadline: a loaded machine is not a failure."""

from hypothesis import settings

settings.register_profile("culvert", deadline=None, derandomize=True)
settings.load_profile("culvert")
