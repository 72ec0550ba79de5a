"""Packages that only some commands need: loaded at use, with the install line where one is missing."""

from importlib import import_module
from typing import Any

from timm_repaint.errors import UsageError


def load_optional(module: str, user: str, extra: str = 'report') -> Any:
    """Import a module of an extra.

    Args:
        module: Its name.
        user: What needs it, for the message.
        extra: Of `pip install '.[…]'`.

    Raises:
        UsageError: if it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition('.')[0]
        reason = '' if (error.name or '').partition('.')[0] == package else f' ({error})'
        raise UsageError(f"{user} needs {package}{reason}: pip install '.[{extra}]'") from error
