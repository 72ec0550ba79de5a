"""The parser of train.py: timm's options by section, then ours."""

import argparse

from timm_repaint.options.augmentation import (
    add_augmentation_options,
    add_loss_options,
    add_mixing_options,
    add_regularisation_options,
)
from timm_repaint.options.baselines import add_baseline_options
from timm_repaint.options.dataset import add_dataset_options, add_loader_options
from timm_repaint.options.distillation import add_distillation_options
from timm_repaint.options.misc import add_misc_options
from timm_repaint.options.model import add_input_options, add_model_options, add_runtime_options
from timm_repaint.options.naflex import add_naflex_options, add_train_size_options
from timm_repaint.options.optimizer import add_optimizer_options
from timm_repaint.options.repaint_options import add_repaint_options
from timm_repaint.options.schedule import add_epoch_options, add_learning_rate_options

SECTIONS = (
    add_dataset_options,
    add_loader_options,
    add_model_options,
    add_input_options,
    add_runtime_options,
    add_optimizer_options,
    add_learning_rate_options,
    add_epoch_options,
    add_augmentation_options,
    add_mixing_options,
    add_loss_options,
    add_regularisation_options,
    add_misc_options,
    add_train_size_options,
    add_naflex_options,
    add_distillation_options,
    add_baseline_options,
    add_repaint_options,
)


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows an option's default unless it is nothing: None, an empty text, list or mapping, or a flag that is off."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default in ('', [], {}):
            return action.help
        return super()._get_help_string(action)


def build_config_parser() -> argparse.ArgumentParser:
    """Builds the parser that takes `-c/--config` off the command line, ahead of the parser of everything else."""
    parser = argparse.ArgumentParser(description='Configuration file', add_help=False)
    _add_config_option(parser, default='')
    return parser


def build_parser(run_dir: bool = False) -> argparse.ArgumentParser:
    """Builds the parser of every option of timm's training script and of Repaint.

    Args:
        run_dir: whether the folder of an earlier run comes first on the command line (`fine_tune.py`).
    """
    parser = argparse.ArgumentParser(
        description='Train a timm classifier; with --repaint, together with a generator that repaints its images.',
        formatter_class=_HelpFormatter,
    )
    if run_dir:
        parser.add_argument('run_dir', metavar='RUN_DIR', help='output folder of a train.py --repaint run')
    # Only for --help: the config parser has taken it away, and it must not appear in args.yaml.
    _add_config_option(parser, default=argparse.SUPPRESS)
    for add_section in SECTIONS:
        add_section(parser)
    return parser


def _add_config_option(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        '-c',
        '--config',
        type=str,
        default=default,
        metavar='FILE',
        help='YAML file of option: value lines, or a recipe of the package by name, such as demo or paper; its line '
        '"base: FILE" puts it over another file; what the command line says comes first',
    )
