"""Files that are whole at any moment."""

import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from timm_repaint.errors import UsageError, as_mistake

PART = '.part'
MARK_WITHIN = 2**20  # bytes of a file
PART_SECONDS = 10.0  # a file is written at once: older ones were left by a process that was killed


def remove_parts(folder: str | Path) -> None:
    """Remove the halves of files that killed processes left in a folder and below."""
    for part in Path(folder).rglob(f'.*{PART}'):
        with suppress(OSError):
            if part.stat().st_mtime < time.time() - PART_SECONDS:
                part.unlink()


def write_whole(
    path: str | Path, write: Callable[[BinaryIO], object], place: Callable[[Path, Path], None] = os.replace
) -> None:
    """Write a file beside its place and then move it there, so that nobody ever finds half of it.

    Args:
        path: File to write; its folder is made.
        write: Writes the content to an open file, in memory: Pillow does not say why a disk refuses it.
        place: Moves or links the finished file to its place.

    Raises:
        UsageError: if the file cannot be written.
    """
    path = Path(path)
    part = path.with_name(f'.{uuid.uuid4().hex}{PART}')  # not named after a process: other hosts write here too
    content = BytesIO()
    write(content)
    with as_mistake(f'cannot write {path}'):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, 'wb') as file:
                file.write(content.getbuffer())
            place(part, path)
        finally:
            part.unlink(missing_ok=True)


def check_ours(path: str | Path, mark: str, what: str, flag: str = '--output') -> None:
    """Refuse to write over somebody's file.

    Args:
        path: Where ours goes.
        mark: A text near the start of every file of ours of this kind.
        what: The kind, for the message.
        flag: The option that names the place, for the message.

    Raises:
        UsageError: if there is a file without the mark, or it cannot be read.
    """
    with as_mistake(f'cannot read {path}'):
        if os.path.exists(path):
            with open(path, 'rb') as file:
                if mark.encode() not in file.read(MARK_WITHIN):
                    raise UsageError(f'{path} was there before and is no {what} of ours: give another {flag}')


def write_text(path: str | Path, text: str, place: Callable[[Path, Path], None] = os.replace) -> None:
    """The same for a text in UTF-8."""
    write_whole(path, lambda file: file.write(text.encode()), place)
