"""The device of a command."""

import torch

from timm_repaint.errors import UsageError, one_line

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
        reason = one_line(str(error))[:MAX_REASON]
        raise UsageError(f'--device {name} does not work here: {reason}; for the CPU give --device cpu') from error
    return device
