"""Which script's stages a run's options are for: train.py's, or the detection script's."""

import argparse

from timm.models import create_model

from timm_repaint.detection.installed import require_packages
from timm_repaint.engine.loop import train_one_epoch, validate
from timm_repaint.engine.run import Functions


def is_detection(args: argparse.Namespace) -> bool:
    """Whether these are options of the detection script, which alone has `--scale-jitter`."""
    return hasattr(args, 'scale_jitter')


def find_functions(args: argparse.Namespace) -> Functions:
    """The stages of the script that the options are for.

    Raises:
        UsageError: if that is the detection script, and its packages are not installed.
    """
    if not is_detection(args):
        return Functions(create_model, train_one_epoch, validate)
    require_packages()
    from timm_repaint.detection.functions import FUNCTIONS

    return FUNCTIONS
