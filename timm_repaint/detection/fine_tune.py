"""The fine-tune phase of a detection run with `--repaint`: the detector alone, on the original images.

`python -m timm_repaint.detection.fine_tune RUN_DIR`, as fine_tune.py for classifiers.
"""

from timm import utils

from timm_repaint.detection.installed import load_functions
from timm_repaint.detection.options import build_parser, check_detection
from timm_repaint.engine.fine_tune_phase import parse_args
from timm_repaint.engine.run import run_training
from timm_repaint.errors import exits_on_mistakes, run_command
from timm_repaint.options import check_options

TRAIN_COMMAND = ('python', '-m', 'timm_repaint.detection.train')


@exits_on_mistakes
def main() -> int:
    """Fine-tune; returns the process's exit status."""
    utils.setup_default_logging()
    args, args_text = parse_args(build_parser(run_dir=True), TRAIN_COMMAND)
    parser = build_parser()
    check_options(parser, args)
    check_detection(parser, args)
    return run_training(args, args_text, load_functions(), exact_resume=True)


if __name__ == '__main__':
    run_command(main)
