"""Train an EfficientDet on COCO; with `--repaint`, co-train a generator ahead of it.

    python -m timm_repaint.detection.train --model tf_efficientdet_d0 --data-dir COCO --repaint --mask fh

The stages of a run are those of train.py (`timm_repaint/engine/run.py`), with the functions in `installed.py`.
"""

from timm_repaint.classification import train_network
from timm_repaint.detection.installed import load_functions
from timm_repaint.detection.options import build_parser, check_detection
from timm_repaint.errors import run_command
from timm_repaint.options import build_config_parser, parse_args


def main() -> int:
    """Train; returns the process's exit status."""
    parser = build_parser()
    return train_network(parser, lambda: parse_args(parser, build_config_parser()), load_functions, check_detection)


if __name__ == '__main__':
    run_command(main)
