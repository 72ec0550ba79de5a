"""The device of a command."""

from textwrap import shorten

import torch

from timm_repaint.errors import UsageError

MAX_REASON = 100  # characters of torch's message, which may list all it was built for


def find_device(name: str) -> torch.device:
    """The device that `--device` names, after a first tensor on it.

    Raises:
        UsageError: if torch does not know it, does not find it, or cannot use it.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:  # by the kind of device
        reason = shorten(str(error).partition('. ')[0], MAX_REASON, placeholder=' ...')
        raise UsageError(f'--device {name} does not work here: {reason}; for the CPU give --device cpu') from error
    return device
