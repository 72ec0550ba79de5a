#!/usr/bin/env python3
"""The fine-tune phase of a `train.py --repaint` run: the classifier alone, on the original images.

`python fine_tune.py RUN_DIR` reads the run's options and last checkpoint and goes on in the same learning-rate
schedule, from the end of the repaint phase to `--epochs`. Results go to `RUN_DIR/fine_tune/`. Any option of `train.py`
overrides. Source: Repaint section 4.2. Where the package is installed, `timm-repaint fine-tune` is the same.
"""

from timm.models import create_model

from timm_repaint.classification import fine_tune_network
from timm_repaint.engine.loop import train_one_epoch, validate
from timm_repaint.engine.run import Functions
from timm_repaint.errors import run_command
from timm_repaint.options import build_parser


def main() -> int:
    """Fine-tune; returns the process's exit status."""
    functions = Functions(create_model, train_one_epoch, validate)
    return fine_tune_network(build_parser, ('python', 'train.py'), lambda: functions)


if __name__ == '__main__':
    run_command(main)
