"""The API objects of ``culvert.dev/v1alpha1`` and the few Kubernetes objects that the planner reads.

Responsible for: raw JSON objects → frozen values that cannot be wrong. Must not know: what the planner
does with them. Invariant: ``parse_*`` never raise; what is wrong in an object becomes a condition where it is used.
"""
