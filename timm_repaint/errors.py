"""A mistake of the user's, told in one line: what we got, what we wanted, how to mend it."""

import sys
from collections.abc import Callable


class UsageError(ValueError):
    """Options, files or data with which the run cannot work."""


def run_command(main: Callable[[], object]) -> None:
    """Call a script's `main`; a user's mistake ends the program with its message instead of a traceback."""
    try:
        status = main()
    except UsageError as error:
        # From a loader's worker it arrives with the worker's traceback in front.
        message = str(error).strip().rpartition(f'{UsageError.__name__}: ')[2]
        sys.exit(f'error: {message}')
    sys.exit(status if isinstance(status, int) else 0)
