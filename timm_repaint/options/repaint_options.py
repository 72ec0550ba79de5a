"""The options of a run with repaints: when it repaints, the masks, and what `Repaint` is made of.

Defaults are those of the trial in the project's notes on small photographs; where the paper (BMVC 2021, section 4)
used another value, the help says so. `recipes/paper.yaml` sets the paper's.
"""

from argparse import Namespace
from dataclasses import dataclass

from timm_repaint.config import RepaintConfig, when
from timm_repaint.masks.choice import MaskOptions
from timm_repaint.option import ZERO_OR_MORE

PREFIX = 'repaint_'  # of the fields of RepaintConfig


@dataclass(frozen=True)
class PhaseOptions:
    """When a run repaints, and how often it shows what."""

    repaint: bool = when(
        False,
        'repaint the training images, by a generator that learns along or as --repaint-generator says',
        roles='start',
    )
    repaint_epochs: int | None = when(
        None,
        'epochs with repaints; the rest of --epochs is fine-tuning on originals in the same learning-rate schedule. '
        'Unset: three quarters',
        paper='150 of 200',
        roles='scale',
    )
    repaint_gallery_interval: int = when(
        10,
        'epochs between two galleries of repaints; 0: only at the end',
        paper='not said',
        limit=ZERO_OR_MORE,
        roles='output',
    )


# Each with what is ahead of its fields' names on the command line.
CONFIGS = ((PhaseOptions, ''), (MaskOptions, ''), (RepaintConfig, PREFIX))


def repaint_fields(args: Namespace) -> Namespace:
    """The `--repaint-…` options under the names of RepaintConfig's fields."""
    given = vars(args).items()
    return Namespace(**{name.removeprefix(PREFIX): value for name, value in given if name.startswith(PREFIX)})
