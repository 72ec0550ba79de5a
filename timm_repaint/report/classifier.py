"""The classifier in a checkpoint of a training, with the weights that its validation measured, made anew."""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import timm
from torch import nn

from timm_repaint.engine.setup import build_classifier
from timm_repaint.errors import UsageError
from timm_repaint.options.parser import build_parser
from timm_repaint.options.run_file import NO_WEIGHTS
from timm_repaint.weights import StateDict, fill, read_checkpoint, state_dict_of

NEEDED = {'model', 'model_kwargs', 'num_classes'}


@dataclass(frozen=True)
class SavedClassifier:
    """What a checkpoint holds of its classifier.

    Attributes:
        args: The run's options.
        epoch: The epoch after which it was written.
        state: The weights that validation measured: the average of `--model-ema`, unless it was kept on the CPU.
    """

    args: Namespace
    epoch: int
    state: StateDict


def read_classifier(path: Path) -> SavedClassifier:
    """The classifier of a checkpoint of train.py or fine_tune.py.

    Raises:
        UsageError: if the file is no such checkpoint.
    """
    try:
        content = read_checkpoint(path)
    except UsageError as error:
        raise UsageError(f'{path} is not a checkpoint of train.py: {str(error).splitlines()[0]}') from error
    args, epoch = (content.get('args'), content.get('epoch')) if isinstance(content, Mapping) else (None, None)
    if not isinstance(args, Namespace) or not vars(args).keys() >= NEEDED or not isinstance(epoch, int):
        raise UsageError(f"{path} is not a checkpoint of train.py: it lacks a run's options or its epoch")
    measured_ema = content.get('state_dict_ema') is not None and not getattr(args, 'model_ema_force_cpu', False)
    names = ('state_dict_ema',) if measured_ema else ('state_dict',)
    return SavedClassifier(args, epoch, state_dict_of(content, str(path), names))


def make_classifier(saved: SavedClassifier, path: Path) -> tuple[nn.Module, Namespace]:
    """The network that was trained, in evaluation mode, and the options of its run; no data are needed.

    Raises:
        UsageError: if it cannot be made, or the weights do not fit.
    """
    args = Namespace(**{**vars(build_parser().parse_args([])), **vars(saved.args), 'rank': 0})
    model = build_classifier(Namespace(**{**vars(args), **NO_WEIGHTS}), timm.create_model)
    fill(model, saved.state, str(path), f'a {args.model}')
    return model.eval(), args
