"""Train and fine-tune a classifier: what train.py and fine_tune.py call, and `timm-repaint train` and `fine-tune`."""

import argparse
from collections.abc import Callable, Sequence

from timm import utils
from timm.models import create_model

from timm_repaint.engine.fine_tune_phase import parse_args as parse_fine_tune_args
from timm_repaint.engine.loop import train_one_epoch, validate
from timm_repaint.engine.run import Functions, run_training
from timm_repaint.errors import exits_on_mistakes
from timm_repaint.options import build_config_parser, build_parser, check_options, parse_args

INSTALLED = Functions(create_model, train_one_epoch, validate, fine_tune_command='timm-repaint fine-tune')


@exits_on_mistakes
def train_classifier(
    parser: argparse.ArgumentParser, parse: Callable[[], tuple[argparse.Namespace, str]], functions: Functions
) -> int:
    """Train; returns the process's exit status. `parse` reads the options, and their text for `args.yaml`.

    Raises:
        SystemExit: on a mistake of the user's.
    """
    utils.setup_default_logging()
    args, args_text = parse()
    check_options(parser, args)
    return run_training(args, args_text, functions)


@exits_on_mistakes
def fine_tune_classifier(train_command: Sequence[str], functions: Functions) -> int:
    """Fine-tune; returns the process's exit status. `train_command` starts the repaint phase, for advice.

    Raises:
        SystemExit: on a mistake of the user's.
    """
    utils.setup_default_logging()
    args, args_text = parse_fine_tune_args(build_parser(run_dir=True), train_command)
    check_options(build_parser(), args)
    return run_training(args, args_text, functions, exact_resume=True)


def train() -> int:
    """`timm-repaint train`."""
    parser = build_parser()
    return train_classifier(parser, lambda: parse_args(parser, build_config_parser()), INSTALLED)


def fine_tune() -> int:
    """`timm-repaint fine-tune RUN_DIR`."""
    return fine_tune_classifier(('timm-repaint', 'train'), INSTALLED)
