"""How a command ends: exit codes, and the exception that carries a sentence to the person who typed it.

Invariant: 0 is success, 1 a failure or something invalid, 2 wrong usage; there is no other code.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Final

SUCCESS: Final = 0
FAILURE: Final = 1
USAGE: Final = 2


class CommandError(Exception):
    """The command cannot do what was asked. The text is one or more sentences, each with a fix; no secrets."""

    def __init__(self, *sentences: str) -> None:
        super().__init__("\n".join(sentences))


class UsageError(CommandError):
    """The command was called in a wrong way that the argument parser cannot see."""


def load_role(module: str, *, extra: str) -> ModuleType:
    """Imports a role's module now; ``CommandError`` naming the extra to install when a library is missing."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("culvert_"):
            raise
        raise CommandError(
            f"This command needs the Python package '{error.name}'; install it with: pip install 'culvert[{extra}]'"
        ) from error
