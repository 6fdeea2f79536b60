"""The one error that a person sees.

Responsible for: carrying a sentence that says what is wrong and what to do about it. Invariant: a `Refusal` is never
a programming error, and its text needs no traceback to be understood.
"""

from __future__ import annotations


class Refusal(Exception):
    """Something outside this program stands in the way; the text names it and the fix. Exit code 1."""
