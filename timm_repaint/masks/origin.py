"""Which image a mask was made from: one that is replaced later would have the mask of another picture."""

import hashlib
import os
from pathlib import Path

from timm_repaint.errors import UsageError
from timm_repaint.masks.label_png import read_note


def digest(image: bytes) -> str:
    """What a mask notes of its image's file."""
    return hashlib.blake2b(image, digest_size=8).hexdigest()


def is_of(mask_path: str, image_path: str) -> bool:
    """Whether a mask is its image's: by time, and by its note where the image is newer, as a copy of it is.

    Raises:
        UsageError: if one of them cannot be read.
    """
    try:
        if os.stat(mask_path).st_mtime_ns >= os.stat(image_path).st_mtime_ns:
            return True
        # Version 0.1 made no note: such a mask is of an older image for all we know.
        return read_note(mask_path) == digest(Path(image_path).read_bytes())
    except OSError as error:
        raise UsageError(f'{error.filename}: {error.strerror}') from error
