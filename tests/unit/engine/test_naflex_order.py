"""NaFlex batches come in timm's order, which knows no seed but its own."""

import argparse

from timm.data.naflex_loader import create_naflex_loader
from torch import nn

from timm_repaint.data.shapes import ShapesDataset
from timm_repaint.engine.loaders import _naflex_train_loader
from timm_repaint.options import build_parser

COMMON = {'batch_size': 4, 'is_training': True, 'num_workers': 0, 'use_prefetcher': False}


def targets(loader):
    return [target.tolist() for _, target in loader]


def test_it_is_timms_for_every_seed():
    timms = targets(create_naflex_loader(ShapesDataset(num_samples=24), patch_size=(16, 16), **COMMON))
    for seed in ('42', '7'):
        options = vars(build_parser().parse_args(['--naflex-loader', '--seed', seed]))
        args = argparse.Namespace(**options, rank=0, world_size=1)
        kwargs = {**COMMON, 'num_aug_splits': 0}
        assert targets(_naflex_train_loader(ShapesDataset(num_samples=24), args, nn.Identity(), kwargs)) == timms
