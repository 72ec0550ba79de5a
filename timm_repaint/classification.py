"""The scripts of both phases, and a classifier's: what train.py, fine_tune.py and `timm-repaint train` call."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence

from timm import utils
from timm.models import create_model

from timm_repaint.engine.fine_tune_phase import parse_args as parse_fine_tune_args
from timm_repaint.engine.loop import train_one_epoch, validate
from timm_repaint.engine.run import Functions, run_training
from timm_repaint.errors import exits_on_mistakes
from timm_repaint.options import build_config_parser, build_parser, check_options, parse_args

Check = Callable[[ArgumentParser, Namespace], None]


@exits_on_mistakes
def train_network(
    parser: ArgumentParser,
    parse: Callable[[], tuple[Namespace, str]],
    load_functions: Callable[[], Functions],
    check: Check = check_options,
) -> int:
    """Train; returns the process's exit status. `parse` reads the options, and their text for `args.yaml`.

    Raises:
        SystemExit: on a mistake of the user's.
    """
    utils.setup_default_logging()
    args, args_text = parse()
    check(parser, args)
    return run_training(args, args_text, load_functions())


@exits_on_mistakes
def fine_tune_network(
    build: Callable[..., ArgumentParser],
    train_command: Sequence[str],
    load_functions: Callable[[], Functions],
    check: Check = check_options,
) -> int:
    """Fine-tune; returns the process's exit status. `train_command` starts the repaint phase, for advice.

    Raises:
        SystemExit: on a mistake of the user's.
    """
    utils.setup_default_logging()
    args, args_text = parse_fine_tune_args(build(run_dir=True), train_command)
    check(build(), args)
    return run_training(args, args_text, load_functions(), exact_resume=True)


def installed() -> Functions:
    """The stages of a classifier's run, which `timm-repaint fine-tune` goes on with."""
    return Functions(create_model, train_one_epoch, validate, fine_tune_command='timm-repaint fine-tune')


def train() -> int:
    """`timm-repaint train`."""
    parser = build_parser()
    return train_network(parser, lambda: parse_args(parser, build_config_parser()), installed)


def fine_tune() -> int:
    """`timm-repaint fine-tune RUN_DIR`."""
    return fine_tune_network(build_parser, ('timm-repaint', 'train'), installed)
