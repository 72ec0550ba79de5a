"""What is measured: a model at a size, and the options of train.py that both kinds of training get."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from timm.models import is_model

from timm_repaint.detection.options import build_parser as build_detection_parser
from timm_repaint.detection.options import check_detection
from timm_repaint.errors import UsageError
from timm_repaint.options import build_config_parser, build_parser, check_options, parse_args
from timm_repaint.saved import PRETRAINED

DEFAULT = 'default'
# Ways to pay less (or more): options that both kinds of training get; plain training ignores those of the repaint.
VARIANTS: dict[str, tuple[str, ...]] = {
    DEFAULT: (),
    'width-8': ('--repaint-width', '8'),
    'width-32': ('--repaint-width', '32'),
    'prob-0.25': ('--repaint-prob', '0.25'),
    'prob-1': ('--repaint-prob', '1'),
    'freeze': ('--repaint-freeze', '--repaint-checkpoint', PRETRAINED),
    'bfloat16': ('--amp', '--amp-dtype', 'bfloat16'),
    'channels-last': ('--channels-last',),
    'compile': ('--torchcompile',),
}
CLASSES, DETECTION_CLASSES = 1000, 80  # ImageNet's, COCO's
KEPT_BATCHES = 3  # where batches are held in memory


@dataclass(frozen=True)
class Case:
    """One line of the tables.

    Attributes:
        model: timm's name.
        img_size_px: height and width.
        batch_size: images in a batch.
        variant: a key of `VARIANTS`.
        options: options of train.py behind those of the variant.
        data: folder of images that are read during the measurement; '': the built-in shapes, held in memory.
        steps: batches of one timing, rounded up to whole patterns of the schedule; so many images there are at least.
    """

    model: str
    img_size_px: int
    batch_size: int
    variant: str = DEFAULT
    options: tuple[str, ...] = ()
    data: str = ''
    steps: int = 3


def plan_cases(options: Namespace, extra: Sequence[str]) -> list[Case]:
    """Every model at the default size; then, where asked for, other sizes, other batches and the variants.

    Raises:
        UsageError: if a variant is unknown.
    """
    unknown = [name for name in options.variants or () if name not in VARIANTS]
    if unknown:
        raise UsageError(f'unknown variant {unknown[0]!r}; choose from {", ".join(VARIANTS)}')
    size, batch = options.img_size, options.batch_size
    variants = options.variants if options.variants != [] else list(VARIANTS)
    points = [
        *((other, batch, DEFAULT) for other in (size, *vars(options).get('sizes', ()))),  # those of bench.cost
        *((size, other, DEFAULT) for other in vars(options).get('batch_sizes', ())),
        *((size, batch, variant) for variant in variants or ()),
    ]
    models = dict.fromkeys(options.models)
    own = (tuple(extra), options.data or '', options.steps)
    cases = [Case(model, *point, *own) for model in models for point in points]
    return list(dict.fromkeys(cases))


def train_options(case: Case, repaint: bool) -> Namespace:
    """The options of train.py for a case; what stands in `case.options` comes before the benchmark's own defaults.

    Raises:
        SystemExit: with status 2, if options contradict each other.
    """
    detector = is_detector(case.model)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    defaults = ['--device', device, '--workers', '0', '--val-split', '']
    if case.data:
        defaults += ['--data-dir', case.data]
    else:
        images, classes = case.batch_size * min(case.steps, KEPT_BATCHES), DETECTION_CLASSES if detector else CLASSES
        defaults += ['--dataset', 'shapes', '--num-classes', str(classes), '--train-num-samples', str(images)]
    own = ['--model', case.model, '--img-size', str(case.img_size_px), '--batch-size', str(case.batch_size)]
    parser = build_detection_parser() if detector else build_parser()
    argv = [*defaults, *case.options, *VARIANTS[case.variant], *own, '--repaint']
    args, _ = parse_args(parser, build_config_parser(), argv)
    (check_detection if detector else check_options)(parser, args)
    args.repaint = repaint
    return args


def is_detector(model: str) -> bool:
    """Whether a model is effdet's and none of timm's.

    Raises:
        UsageError: if it is neither.
    """
    if is_model(model.split('.')[0]):
        return False
    if find_spec('effdet') is not None:
        from effdet.config.model_config import efficientdet_model_param_dict

        if model in efficientdet_model_param_dict:
            return True
    raise UsageError(
        f"timm has no model {model!r}, timm.list_models() names all; for EfficientDets: pip install '.[detection]'"
    )
