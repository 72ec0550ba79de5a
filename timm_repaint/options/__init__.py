"""The command line of train.py: timm's options by section, Repaint's own, YAML files and conflicts."""

from timm_repaint.options.conflicts import check_options, parse_schedule, resolve_repaint_epochs, resolve_stop_epoch
from timm_repaint.options.option_files import parse_args
from timm_repaint.options.parser import build_config_parser, build_parser
from timm_repaint.options.roles import is_repaint_option

__all__ = [
    'build_config_parser',
    'build_parser',
    'check_options',
    'is_repaint_option',
    'parse_args',
    'parse_schedule',
    'resolve_repaint_epochs',
    'resolve_stop_epoch',
]
