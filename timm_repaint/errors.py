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
        sys.exit(f'error: {error}')
    sys.exit(status if isinstance(status, int) else 0)
