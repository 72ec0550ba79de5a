"""Fixtures of the tests that train the tables' recipes."""

import pytest
import torch

from timm_repaint.masks.deeplab_network import DeepLabV2


@pytest.fixture(scope='session')
def deeplab_weights(tmp_path_factory):
    """Random weights of a narrow DeepLab-v2."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'deeplab.pth'
    torch.save(DeepLabV2(21, blocks=(1, 1, 1, 1), width=4).state_dict(), path)
    return path
