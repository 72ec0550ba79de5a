"""Which sizes of images a classifier is asked to take ahead of the run."""

import argparse

import pytest
import timm

from timm_repaint.engine.setup import check_input
from timm_repaint.errors import UsageError

OPTIONS = {'naflex_loader': False, 'torchscript': False, 'train_img_sizes': None, 'model_kwargs': {}, 'in_chans': None}


def sizes_seen(model, size=(3, 160, 160), **options):
    """The sizes of the images that the model is shown."""
    seen = []
    model.register_forward_pre_hook(lambda module, images: seen.append(tuple(images[0].shape[1:])))
    check_input(model, argparse.Namespace(**{**OPTIONS, 'model': 'test', **options}), {'input_size': size})
    return seen


@pytest.mark.parametrize(
    ('options', 'seen'),
    [
        ({}, []),
        ({'size': (3, 96, 160)}, [(3, 96, 160)]),
        ({'train_img_sizes': [96, 160, 128]}, [(3, 96, 96), (3, 128, 128)]),
        ({'model_kwargs': {'drop_path_rate': 0.1}}, [(3, 160, 160)]),
        ({'in_chans': 3}, []),
    ],
)
def test_its_own_size_costs_no_forward_pass(options, seen):
    assert sizes_seen(timm.create_model('test_resnet'), **options) == seen


def test_a_model_of_other_channels_is_found_out():
    with pytest.raises(UsageError, match='--model test takes no images of 3x160x160'):
        sizes_seen(timm.create_model('test_resnet', in_chans=1), in_chans=1)
