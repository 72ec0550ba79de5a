"""The stages of a run that are a detector's own, once its packages are known to be there."""

import warnings
from argparse import Namespace
from importlib.util import find_spec

import timm

from timm_repaint.engine import loop
from timm_repaint.engine.fine_tune_phase import DETECTION_COMMAND
from timm_repaint.engine.run import Functions
from timm_repaint.errors import UsageError
from timm_repaint.options.run_file import is_detection

PACKAGES = ('effdet', 'faster_coco_eval')


def load_functions() -> Functions:
    """The stages of a run that are a detector's own; silences what effdet's import warns of and no user can mend.

    Raises:
        UsageError: if the extra is not installed.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UsageError(f"object detection needs {' and '.join(missing)}: pip install '.[detection]'")
    warnings.filterwarnings('ignore', '`torch.jit.script` is deprecated', FutureWarning)
    from effdet import create_model

    from timm_repaint.detection import task
    from timm_repaint.detection.coco_loaders import build_loaders
    from timm_repaint.detection.detection_watch import DetectionWatch
    from timm_repaint.detection.evaluate import validate

    stages = (task.build_model, task.resolve_data, build_loaders, task.build_task, DetectionWatch)
    return Functions(create_model, loop.train_one_epoch, validate, *stages, fine_tune_command=DETECTION_COMMAND)


def find_functions(args: Namespace) -> Functions:
    """The stages of the script that the options are for: a classifier's, or `load_functions`."""
    if is_detection(vars(args)):
        return load_functions()
    return Functions(timm.create_model, loop.train_one_epoch, loop.validate)
