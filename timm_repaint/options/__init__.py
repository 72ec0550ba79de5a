"""The command line of train.py: timm's options by section, Repaint's own, YAML files and conflicts."""

from timm_repaint.options.conflicts import check_options as check_options
from timm_repaint.options.option_files import parse_args as parse_args
from timm_repaint.options.parser import build_config_parser as build_config_parser
from timm_repaint.options.parser import build_parser as build_parser
