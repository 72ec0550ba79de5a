"""DeepLab-v2's layout counted against ResNet-101's, and its layers on values worked out by hand."""

import pytest
import torch
from torch import nn

from timm_repaint.masks.deeplab_network import Bottleneck, DeepLabV2, SummedAspp


def test_full_layout_has_resnet101s_keys_and_parameters():
    with torch.device('meta'):
        net = DeepLabV2(21)
    # ResNet-101 without its classifier has 42,500,160 parameters; four 3x3 classifiers with bias on 2048 channels.
    assert sum(parameter.numel() for parameter in net.parameters()) == 42_500_160 + 4 * (2048 * 9 * 21 + 21)
    state = net.state_dict()
    convs = 1 + 3 * (3 + 4 + 23 + 3) + 4  # stem, three a bottleneck, four shortcuts
    assert len(state) == convs * 6 + 8  # weight, four of the batch norm and its counter
    assert state['base.layer1.conv1.conv.weight'].shape == (64, 3, 7, 7)
    assert state['base.layer4.block23.conv3x3.bn.running_var'].shape == (256,)
    assert state['base.layer5.block1.shortcut.conv.weight'].shape == (2048, 1024, 1, 1)
    assert 'base.layer5.block2.shortcut.conv.weight' not in state
    assert state['base.aspp.c3.weight'].shape == (21, 2048, 3, 3)


@pytest.mark.parametrize(('size_px', 'feature_px'), [(513, 65), (321, 41), (224, 29), (65, 9), (64, 9), (8, 2)])
def test_logits_have_an_eighth_of_the_size_with_the_pool_rounding_up(size_px, feature_px):
    with torch.device('meta'):
        net, image = DeepLabV2(2, blocks=(1, 1, 1, 1), width=4), torch.empty(1, 3, size_px, 16)
    assert net(image).shape[2] == feature_px


def test_only_layer3_strides_and_the_last_two_layers_dilate():
    net = DeepLabV2(2, blocks=(1, 2, 2, 2), width=4)
    strides = [net.get_submodule(f'base.layer{layer}.block1.reduce.conv').stride for layer in range(2, 6)]
    shortcuts = [net.get_submodule(f'base.layer{layer}.block1.shortcut.conv').stride for layer in range(2, 6)]
    dilations = [net.get_submodule(f'base.layer{layer}.block1.conv3x3.conv').dilation for layer in range(2, 6)]
    assert strides == shortcuts == [(1, 1), (2, 2), (1, 1), (1, 1)]
    assert dilations == [(1, 1), (1, 1), (2, 2), (4, 4)]
    assert net.get_submodule('base.layer5.block2.conv3x3.conv').dilation == (4, 4)


@pytest.mark.parametrize(
    ('reduce', 'conv3x3', 'increase', 'out'),
    [(1, 1, 1, 4), (1, -1, 1, 2), (-1, -1, 1, 2), (1, 1, -3, 0), (0.5, 3, 2, 8)],
)
def test_bottleneck_cuts_negative_values_after_each_step_and_after_the_sum(reduce, conv3x3, increase, out):
    block = Bottleneck(4, 4, stride=1, dilation=2, project=False).eval()
    for name, weight in {'reduce': reduce, 'conv3x3': conv3x3, 'increase': increase}.items():
        parameter = block.get_parameter(f'{name}.conv.weight')
        nn.init.zeros_(parameter)
        with torch.no_grad():
            parameter[0, 0, parameter.shape[2] // 2, parameter.shape[3] // 2] = weight
    x = torch.tensor([2.0, 3.0, 0.0, 5.0]).view(1, 4, 1, 1)
    torch.testing.assert_close(block(x).flatten(), torch.tensor([out, 3.0, 0.0, 5.0]), rtol=1e-4, atol=1e-4)


def test_stem_cuts_negative_values():
    stem = DeepLabV2(2, blocks=(1, 1, 1, 1), width=4).eval().get_submodule('base.layer1')
    weight = nn.init.zeros_(stem.get_parameter('conv1.conv.weight'))
    with torch.no_grad():
        weight[:3, :, 3, 3] = torch.eye(3)
    image = torch.tensor([-1.0, 0.5, -2.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    expected = torch.tensor([0, 0.5, 0, 0]).view(1, 4, 1, 1).expand(1, 4, 3, 3)
    torch.testing.assert_close(stem(image), expected, rtol=1e-4, atol=1e-4)


def test_aspp_adds_four_classifiers_that_reach_6_12_18_and_24_pixels():
    aspp = SummedAspp(1, 1)
    for parameter in aspp.parameters():
        nn.init.constant_(parameter, 1.0 if parameter.ndim == 4 else 0.25)
    impulse = torch.zeros(1, 1, 61, 61)
    impulse[..., 30, 30] = 1
    response = aspp(impulse)[0, 0]
    expected = torch.full((61, 61), 4 * 0.25)
    for rate in (6, 12, 18, 24):
        for dy in (-rate, 0, rate):
            for dx in (-rate, 0, rate):
                expected[30 + dy, 30 + dx] += 1
    torch.testing.assert_close(response, expected)
    assert response[30, 30] == 5 and response[30, 36] == 2 and response[30, 35] == 1
