"""The options of the detection scripts: those of train.py with a detector's defaults, less what has no meaning here."""

import argparse
from collections.abc import Iterator

from timm_repaint.detection.shapes import SHAPES
from timm_repaint.options import build_parser as build_classification_parser

DEFAULTS = {
    'model': 'tf_efficientdet_d0',
    'eval_metric': 'map',
    'batch_size': 16,
    'color_jitter': 0.0,
    'smoothing': 0.0,
}
EVAL_METRICS = ('map', 'ap50', 'loss')

# Options of train.py that a detector does not take, and why.
WHOLE_IMAGE = 'boxes have no place in it'
MIXES = 'it mixes images or hides parts of them, and their boxes would have to be mixed too'
OWN_MODEL = "it shapes a classifier; give effdet's own settings with --model-kwargs"
OWN_LOSS = 'it belongs to the loss of a classifier'
ONE_READER = "images and boxes are read in COCO's layout alone"
REFUSED: dict[str, tuple[str, ...]] = {
    WHOLE_IMAGE: (
        *('crop_pct', 'train_crop_mode', 'scale', 'ratio', 'train_interpolation', 'color_jitter_prob'),
        *('grayscale_prob', 'gaussian_blur_prob', 'aa', 'aug_repeats', 'aug_splits', 'tta', 'epoch_repeats'),
        *('naflex_loader', 'train_img_sizes', 'train_batch_sizes', 'train_batches_per_epoch', 'cue_conflict'),
    ),
    MIXES: ('mixup', 'cutmix', 'cutmix_minmax', 'reprob', 'resplit', 'cutout'),
    OWN_MODEL: (
        *('pretrained_path', 'gp', 'head_init_scale', 'head_init_bias', 'in_chans', 'input_size'),
        *('drop', 'drop_connect', 'drop_path', 'drop_block', 'bn_eps', 'split_bn'),
        *('torchscript', 'grad_checkpointing'),
    ),
    OWN_LOSS: ('smoothing', 'jsd_loss', 'bce_loss', 'isda', 'kd_model_name'),
    ONE_READER: (
        *('class_map', 'input_img_mode', 'input_key', 'target_key', 'dataset_download', 'dataset_trust_remote_code'),
        'no_prefetcher',
    ),
}
# What only changes how one of these works.
FURTHER = (
    *('mixup_prob', 'mixup_switch_prob', 'mixup_mode', 'mixup_off_epoch', 'remode', 'recount'),
    *('bce_sum', 'bce_target_thresh', 'bce_pos_weight', 'variable_batch_loss_scale'),
)
FURTHER_PREFIXES = ('naflex_', 'kd_', 'train_size_')


def build_parser(run_dir: bool = False) -> argparse.ArgumentParser:
    """The parser of the detection scripts.

    Args:
        run_dir: Whether the folder of an earlier run comes first on the command line (the fine-tune phase).
    """
    parser = build_classification_parser(run_dir)
    parser.description = 'Train an EfficientDet; with --repaint, together with a generator that repaints its images.'
    parser.set_defaults(**DEFAULTS)
    add = parser.add_argument_group('Detection').add_argument
    add(
        '--pretrained-backbone',
        action='store_true',
        help='start the backbone from the published ImageNet weights; --pretrained takes the whole detector',
    )
    add(
        '--scale-jitter',
        type=float,
        nargs=2,
        default=[0.1, 2.0],
        metavar=('LOW', 'HIGH'),
        help='size of training images: factors on the size at which they fit the square',
    )
    refused = {dest for dests in REFUSED.values() for dest in dests}
    for action in parser._actions:  # argparse has no public list of them
        if action.dest in refused or action.dest in FURTHER or action.dest.startswith(FURTHER_PREFIXES):
            action.help = argparse.SUPPRESS
    return parser


def check_detection(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Stop with the parser's error at the first option that a detector does not take, or whose value it cannot use."""
    for problem in find_problems(parser, args):
        parser.error(problem)


def find_problems(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Iterator[str]:
    """A sentence for each problem."""
    for reason, dests in REFUSED.items():
        for dest in dests:
            if getattr(args, dest) != parser.get_default(dest):
                yield f'--{dest.replace("_", "-")} does not go with detection: {reason}; leave it out'
    if args.dataset not in ('', SHAPES):
        yield f'--dataset is {args.dataset!r}; a detector reads a folder in COCO\'s layout, or "shapes"'
    if args.dataset == SHAPES and args.train_fraction < 1:
        yield '--train-fraction is for images in files; of shapes give --train-num-samples'
    if args.dataset != SHAPES and (args.train_num_samples or args.val_num_samples):
        yield '--train-num-samples and --val-num-samples are for --dataset shapes; use --train-fraction'
    if args.mask == 'outlines':
        yield '--mask outlines is for the classification set of --dataset shapes; use another --mask'
    if args.eval_metric not in EVAL_METRICS:
        yield f'--eval-metric is {args.eval_metric}; a detector has {", ".join(EVAL_METRICS)}'
    low, high = args.scale_jitter
    if not 0 < low <= high:
        yield f'--scale-jitter is {low} {high}; it takes two factors above 0, the smaller one first'
