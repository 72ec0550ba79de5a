"""A mistake of the user's, told in one line: what we got, what we wanted, how to mend it."""

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, ParamSpec

Params = ParamSpec('Params')
INTERRUPTED = 130  # the shell's code for Ctrl-C


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
    """Call a script's `main` and end the program with its status, or with a line instead of a traceback.

    A user's mistake ends it with its message, Ctrl-C with the shell's status, also while it closes. A reader of the
    output who goes ends nothing.
    """
    sys.stdout, sys.stderr = PatientStream(sys.stdout), PatientStream(sys.stderr)
    try:
        status = main()
    except UsageError as error:
        sys.exit(f'error: {_message(error)}')
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        status = INTERRUPTED
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    sys.exit(status if isinstance(status, int) else 0)


class PatientStream:
    """An output stream whose reader may go, as `head` does: the rest is dropped and the work goes on."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> Any:
        return self._patiently(self._stream.write, text)

    def flush(self) -> None:
        self._patiently(self._stream.flush)

    def _patiently(self, call: Callable[..., Any], *values: Any) -> Any:
        try:
            return call(*values)
        except BrokenPipeError:  # what is still in the stream's buffer has to go somewhere
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            return None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def as_mistake(what: str, *kinds: type[Exception], advice: str = '') -> Iterator[None]:
    """Inside, an error of these kinds (none: of the disk's) becomes a `UsageError`: what went wrong, why, advice.

    Raises:
        UsageError: then.
    """
    try:
        yield
    except UsageError:
        raise
    except kinds or OSError as error:  # noqa: B030 (a tuple, or a class)
        raise UsageError(f'{what}: {getattr(error, "strerror", None) or error}{advice}') from error


def _message(error: UsageError) -> str:
    """What the error says; from a loader's worker it arrives with the worker's traceback in front."""
    return one_line(str(error).strip().rpartition(f'{UsageError.__name__}: ')[2])


def one_line(text: str) -> str:
    """A text with names of files or another program's words, without line ends and characters that steer a terminal."""
    joined = ' '.join(line.strip() for line in text.splitlines())
    return ''.join(one if one.isprintable() else one.encode('unicode_escape').decode() for one in joined)


def first_of(names: Sequence[str], most: int = 5) -> str:
    """The first of some names, and how many more there are, in one line."""
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return one_line(', '.join(map(str, names[:most]))) + more
