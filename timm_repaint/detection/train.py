"""Train an EfficientDet on COCO; with `--repaint`, co-train a generator ahead of it.

    python -m timm_repaint.detection.train --model tf_efficientdet_d0 --data-dir COCO --repaint --mask fh

The stages of a run are those of train.py (`timm_repaint/engine/run.py`), with the functions in `installed.py`.
"""

from timm import utils

from timm_repaint.detection.installed import load_functions
from timm_repaint.detection.options import build_parser, check_detection
from timm_repaint.engine.run import run_training
from timm_repaint.errors import exits_on_mistakes, run_command
from timm_repaint.options import build_config_parser, check_options, parse_args


@exits_on_mistakes
def main() -> int:
    """Train; returns the process's exit status."""
    utils.setup_default_logging()
    parser = build_parser()
    args, args_text = parse_args(parser, build_config_parser())
    check_options(parser, args)
    check_detection(parser, args)
    return run_training(args, args_text, load_functions())


if __name__ == '__main__':
    run_command(main)
