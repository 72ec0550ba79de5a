"""DeepLab-v2: a ResNet at output stride 8 and four summed atrous classifiers, in the public checkpoints' layout.

Source: L.-C. Chen et al., DeepLab: semantic image segmentation with deep convolutional nets, atrous convolution, and
fully connected CRFs, PAMI 2018.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

RESNET101_BLOCKS = (3, 4, 23, 3)
ASPP_RATES = (6, 12, 18, 24)
# Stride and dilation of layer2 to layer5: the last two dilate where a classifier would go on halving the size.
STAGE_STRIDES = (1, 2, 1, 1)
STAGE_DILATIONS = (1, 1, 2, 4)
EXPANSION = 4  # a bottleneck's output channels over its inner ones


def _conv_bn(in_channels: int, out_channels: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution that keeps the size (at stride 1), then batch norm; `conv` and `bn` are the checkpoints' names."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels)))


class Bottleneck(nn.Module):
    """1x1, 3x3 atrous, 1x1, around them a shortcut; the first 1x1 strides, as in the original ResNet.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out, 4 times the inner ones.
        stride: of the first convolution and of the shortcut.
        dilation: of the 3x3 convolution.
        project: whether the shortcut is a convolution; if not, it is the input itself.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, dilation: int, project: bool) -> None:
        super().__init__()
        inner = out_channels // EXPANSION
        self.reduce = _conv_bn(in_channels, inner, 1, stride)
        self.conv3x3 = _conv_bn(inner, inner, 3, dilation=dilation)
        self.increase = _conv_bn(inner, out_channels, 1)
        self.shortcut = _conv_bn(in_channels, out_channels, 1, stride) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, out_channels, H / stride, W / stride], rounded up."""
        h = F.relu(self.reduce(x))
        h = F.relu(self.conv3x3(h))
        return F.relu(self.increase(h) + self.shortcut(x))


class SummedAspp(nn.Module):
    """Atrous spatial pyramid: one 3x3 classifier a rate, their logits added.

    Args:
        in_channels: channels of the features.
        num_classes: channels of the logits.
        rates: dilations, in feature pixels.
    """

    def __init__(self, in_channels: int, num_classes: int, rates: Sequence[int] = ASPP_RATES) -> None:
        super().__init__()
        self.names = [f'c{index}' for index in range(len(rates))]
        for name, rate in zip(self.names, rates, strict=True):
            self.add_module(name, nn.Conv2d(in_channels, num_classes, 3, padding=rate, dilation=rate))

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, h, w] -> logits [B, num_classes, h, w], unbounded."""
        logits = self.get_submodule(self.names[0])(features)
        for name in self.names[1:]:
            logits = logits + self.get_submodule(name)(features)
        return logits


class DeepLabV2(nn.Module):
    """DeepLab-v2, by default on ResNet-101; its keys are those of the public COCO-Stuff checkpoints.

    Args:
        num_classes: classes of the logits; 182 in COCO-Stuff, 21 in VOC.
        blocks: bottlenecks in `base.layer2` to `base.layer5`.
        width: channels of the stem; layer2 puts out 4 times, layer5 32 times as many.
    """

    def __init__(self, num_classes: int, blocks: Sequence[int] = RESNET101_BLOCKS, width: int = 64) -> None:
        super().__init__()
        self.num_classes = num_classes
        # Rounding up in the pool makes 513 px give 65 and 224 px give 29 feature pixels.
        pool = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
        layers: dict[str, nn.Module] = {
            'layer1': nn.Sequential(OrderedDict(conv1=_conv_bn(3, width, 7, 2), relu=nn.ReLU(), pool=pool))
        }
        in_channels = width
        for stage, (count, stride, dilation) in enumerate(zip(blocks, STAGE_STRIDES, STAGE_DILATIONS, strict=True)):
            out_channels = EXPANSION * width * 2**stage
            layers[f'layer{stage + 2}'] = _res_layer(count, in_channels, out_channels, stride, dilation)
            in_channels = out_channels
        layers['aspp'] = SummedAspp(in_channels, num_classes)
        self.base = nn.Sequential(OrderedDict(layers))

    def forward(self, image_bgr: Tensor) -> Tensor:
        """Logits at an eighth of the size.

        Args:
            image_bgr: [B, 3, H, W], channels blue, green, red in 0..255, less the training set's mean.

        Returns:
            [B, num_classes, h, w] unbounded, h and w about H / 8 and W / 8.
        """
        logits: Tensor = self.base(image_bgr)  # [B, K, h, w]
        return logits


def _res_layer(count: int, in_channels: int, out_channels: int, stride: int, dilation: int) -> nn.Sequential:
    blocks = [Bottleneck(in_channels, out_channels, stride, dilation, project=True)]
    blocks += [Bottleneck(out_channels, out_channels, 1, dilation, project=False) for _ in range(count - 1)]
    return nn.Sequential(OrderedDict((f'block{index}', block) for index, block in enumerate(blocks, start=1)))
