#!/usr/bin/env python3
"""The fine-tune phase of a `train.py --repaint` run: the classifier alone, on the original images.

`python fine_tune.py RUN_DIR` reads the run's options and last checkpoint and goes on in the same learning-rate
schedule, from the end of the repaint phase to `--epochs`. Results go to `RUN_DIR/fine_tune/`. Any option of `train.py`
overrides. Source: Repaint section 4.2.
"""

from timm import utils
from timm.models import create_model

from timm_repaint.engine.fine_tune import parse_args
from timm_repaint.engine.loop import train_one_epoch, validate
from timm_repaint.engine.run import Functions, run_training
from timm_repaint.errors import run_command
from timm_repaint.options import build_parser, check_options


def main() -> int:
    """Fine-tune; returns the process's exit status."""
    utils.setup_default_logging()
    args, args_text = parse_args(build_parser(run_dir=True), ('python', 'train.py'))
    check_options(build_parser(), args)
    return run_training(args, args_text, Functions(create_model, train_one_epoch, validate), exact_resume=True)


if __name__ == '__main__':
    run_command(main)
