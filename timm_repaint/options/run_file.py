"""`args.yaml`: the options of a run, in its folder."""

import os
from collections.abc import Mapping
from typing import Any

from timm_repaint.errors import UsageError
from timm_repaint.options.bases import drop_removed, load_yaml

ARGS = 'args.yaml'
CUE_CONFLICT = 'cue_conflict.json'
FINE_TUNE = 'fine_tune'  # the folder of the second phase in a run's
STARTED_FROM = 'started_from'  # in that one's `args.yaml`: the digest of the checkpoint that it went on from
EARLIER = 'earlier-'  # and a number: where a run puts the files of another one that it finds in its folder
# Options of a run that is loaded from a checkpoint of its own: no other weights.
NO_WEIGHTS: dict[str, Any] = {
    **{'pretrained': False, 'pretrained_path': None, 'initial_checkpoint': ''},
    **{'pretrained_backbone': False, 'pretrained_backbone_path': ''},
}
RUN = 'RUN is the output folder of a train.py --repaint run'


def read_args(folder: str | os.PathLike[str], advice: str = RUN) -> dict[str, Any]:
    """The options of a run, without those that went away.

    Args:
        folder: The run's.
        advice: What to say where there is no such file.

    Raises:
        UsageError: if the file is not there, or does not hold the options of a run of this version.
    """
    path = os.path.join(folder, ARGS)
    if not os.path.exists(path):
        raise UsageError(f'{path} does not exist: {advice}')
    options = load_yaml(path)
    if not isinstance(options, dict):
        raise UsageError(f'{path} does not hold the options of a run')
    return drop_removed(options, path)


def read_repaint_args(folder: str | os.PathLike[str], advice: str = RUN) -> dict[str, Any]:
    """The same of a run with repaints.

    Raises:
        UsageError: also if it is one without.
    """
    options = read_args(folder, advice)
    if not options.get('repaint'):
        raise UsageError(f'{folder} is a run without --repaint: name the folder of a repaint phase')
    return options


def is_detection(options: Mapping[str, Any]) -> bool:
    """Whether these are options of a detector: by `task`, or in runs of version 0.1 by an option of its own."""
    return options.get('task') == 'detection' or 'scale_jitter' in options
