"""The fine-tune phase of a detection run with `--repaint`: the detector alone, on the original images.

`python -m timm_repaint.detection.fine_tune RUN_DIR`, as fine_tune.py for classifiers.
"""

from timm_repaint.classification import fine_tune_network
from timm_repaint.detection.installed import load_functions
from timm_repaint.detection.options import build_parser, check_detection
from timm_repaint.errors import run_command

TRAIN_COMMAND = ('python', '-m', 'timm_repaint.detection.train')


def main() -> int:
    """Fine-tune; returns the process's exit status."""
    return fine_tune_network(build_parser, TRAIN_COMMAND, load_functions, check_detection)


if __name__ == '__main__':
    run_command(main)
