"""The kinds of tasks: which stages a run's options are for."""

import argparse

from timm.models import create_model

from timm_repaint.detection.installed import load_functions
from timm_repaint.engine.loop import train_one_epoch, validate
from timm_repaint.engine.run import Functions
from timm_repaint.options.run_file import is_detection


def find_functions(args: argparse.Namespace) -> Functions:
    """The stages of the script that the options are for.

    Raises:
        UsageError: if that is the detection script, and its packages are not installed.
    """
    return load_functions() if is_detection(vars(args)) else Functions(create_model, train_one_epoch, validate)
