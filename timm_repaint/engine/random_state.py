"""Random numbers of a run that resumes exactly: a function of seed, process and epoch, so no state has to be saved.

A checkpoint stands at an epoch's end. At the start of each epoch all generators are seeded anew from `--seed`, the
process's rank and the epoch's number, before the loader draws its order and its workers' seeds from them; and the
loader starts new workers each epoch, since the generators of workers that live on are out of reach. An epoch's crops,
MixUp, latents and dropout are then the same whether the epochs before it ran in this process or in another one.
Runs without `--repaint` are timm's: seeded once, with workers that live as long as the run.
"""

from argparse import Namespace

import numpy as np
from timm import utils
from torch import nn

from timm_repaint.log import logger


def seed_epoch(args: Namespace, epoch: int, average: nn.Module | None = None) -> None:
    """Seed Python's, NumPy's and torch's generators, those of all devices included, for an epoch.

    By 32 bits that differ between runs' seeds, processes and epochs.

    Args:
        args: All options.
        epoch: Which.
        average: Of T's weights, by timm, which rounds bfloat16 by a generator of its own, alike in all processes.
    """
    utils.random_seed(int(np.random.SeedSequence((args.seed, args.rank, epoch)).generate_state(1)[0]))
    rounding = getattr(average, '_sr_generator', None)
    if rounding is not None:
        rounding.manual_seed(epoch)


def warn_of_inexact_resume(args: Namespace) -> None:
    """Name the options whose state outlives an epoch but is in no checkpoint."""
    if args.use_multi_epochs_loader:
        logger.warning('--use-multi-epochs-loader reads ahead of the epoch: a resumed run sees other augmentations.')
    if args.sched == 'plateau':
        logger.warning('--sched plateau: a resumed run counts its epochs without improvement from zero.')
