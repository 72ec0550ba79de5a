"""The command line of train.py: timm's options by section, Repaint's own, YAML files and conflicts."""

from timm_repaint.options.conflicts import check_options as check_options
from timm_repaint.options.conflicts import parse_schedule as parse_schedule
from timm_repaint.options.conflicts import resolve_repaint_epochs as resolve_repaint_epochs
from timm_repaint.options.conflicts import resolve_stop_epoch as resolve_stop_epoch
from timm_repaint.options.option_files import parse_args as parse_args
from timm_repaint.options.parser import build_config_parser as build_config_parser
from timm_repaint.options.parser import build_parser as build_parser
from timm_repaint.options.roles import is_repaint_option as is_repaint_option
