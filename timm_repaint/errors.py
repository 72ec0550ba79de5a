"""A mistake of the user's, told in one line: what we got, what we wanted, how to mend it."""

import functools
import sys
from collections.abc import Callable
from typing import NoReturn

from typing_extensions import ParamSpec

Params = ParamSpec('Params')


class UsageError(ValueError):
    """Options, files or data with which the run cannot work."""


class UsageExit(SystemExit, UsageError):  # noqa: N818 (an exit, as SystemExit is)
    """The end of a script for a mistake of the user's: SystemExit, and a ValueError as timm's script has it for some.

    Args:
        message: What stands behind 'error: '.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = f'error: {message}'


def exits_on_mistakes(main: Callable[Params, int]) -> Callable[Params, int]:
    """A script's `main` that ends with SystemExit on a mistake of the user's, for those who call it as a function."""

    @functools.wraps(main)
    def wrapped(*args: Params.args, **kwargs: Params.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except UsageError as error:
            raise UsageExit(_message(error)) from error

    return wrapped


def run_command(main: Callable[[], object]) -> NoReturn:
    """Call a script's `main`; a user's mistake ends the program with its message instead of a traceback."""
    try:
        status = main()
    except UsageError as error:
        sys.exit(f'error: {_message(error)}')
    sys.exit(status if isinstance(status, int) else 0)


def _message(error: UsageError) -> str:
    """What the error says; from a loader's worker it arrives with the worker's traceback in front."""
    return str(error).strip().rpartition(f'{UsageError.__name__}: ')[2]
