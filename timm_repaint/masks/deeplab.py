"""Semantic masks by DeepLab-v2 (public COCO-Stuff and VOC checkpoints) and torchvision's DeepLab-v3, on any device."""

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import segmentation

from timm_repaint.errors import UsageError
from timm_repaint.masks.deeplab_network import RESNET101_BLOCKS, DeepLabV2
from timm_repaint.masks.on_device import DeviceMasks
from timm_repaint.weights import StateDict, fill, read_state_dict

MAX_CLASSES = 255  # the label 255 means unknown
# Full-size logits at a time: 256 MiB in float32; a batch of 256 at 224 px with 182 classes would be 9 GiB.
LOGITS_PER_CHUNK = 2**26

BGR_MEAN = (104.008, 116.669, 122.675)  # of pixels in 0..255
RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of pixels in 0..1

# Older DeepLab-v2 files spell the same layers differently.
V2_SPELLINGS = {r'^scale\.': 'base.', r'\.aspp\.stages\.': '.aspp.', r'\.proj\.': '.shortcut.'}
V3_WEIGHTS = segmentation.DeepLabV3_ResNet101_Weights.DEFAULT


class DeepLabMasks(DeviceMasks):
    """A frozen segmentation network as a mask source; it stays in evaluation mode whatever `train` says.

    Args:
        net: the network; its parameters are frozen.
        num_labels: number of its classes.
        mean: of the training set's pixels, one value a channel.
    """

    kind: str = 'semantic'
    mean: Tensor

    def __init__(self, net: nn.Module, num_labels: int, mean: tuple[float, float, float]) -> None:
        super().__init__()
        self.net = net.requires_grad_(False)
        self.num_labels: int | None = num_labels
        self.register_buffer('mean', torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> 'DeepLabMasks':
        """Keep evaluation mode: batch norms must not learn from what the trainer shows them."""
        return super().train(False)

    def cut(self, image_pm1: Tensor) -> Tensor:
        """[B, 3, H, W] float32 in [-1, 1] -> class ids [B, H, W] int64, 0 to num_labels - 1."""
        height, width = image_pm1.shape[2:]
        logits = self.logits(image_pm1)  # [B, K, h, w]
        images_per_chunk = max(1, LOGITS_PER_CHUNK // (logits.shape[1] * height * width))
        parts = [
            # bfloat16 logits would tie after the resize
            F.interpolate(part.float(), size=(height, width), mode='bilinear', align_corners=False).argmax(dim=1)
            for part in logits.split(images_per_chunk)
        ]
        return torch.cat(parts)

    def logits(self, image_pm1: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1] -> [B, num_labels, h, w]."""
        raise NotImplementedError


class DeepLabV2Masks(DeepLabMasks):
    """DeepLab-v2's class ids: 0 to 181 as in COCO-Stuff's PNG label maps, or 0 to 20 as in VOC (0 = background).

    Args:
        checkpoint: file for `load_deeplabv2`.

    Raises:
        UsageError: if the file is missing, unreadable or of another layout.
    """

    def __init__(self, checkpoint: str) -> None:
        net = load_deeplabv2(checkpoint)
        super().__init__(net, net.num_classes, BGR_MEAN)

    def logits(self, image_pm1: Tensor) -> Tensor:
        return self.net((image_pm1.flip(1) + 1) * 127.5 - self.mean)


class DeepLabV3Masks(DeepLabMasks):
    """torchvision's DeepLab-v3 on ResNet-50 or ResNet-101: VOC's class ids 0 to 20 (0 = background), or the file's own.

    Args:
        checkpoint: file for `load_deeplabv3`; '' downloads torchvision's weights of ResNet-101.

    Raises:
        UsageError: if the file is missing, unreadable or of another layout, or the download fails.
    """

    std: Tensor

    def __init__(self, checkpoint: str = '') -> None:
        net, num_labels = load_deeplabv3(checkpoint)
        super().__init__(net, num_labels, RGB_MEAN)
        self.register_buffer('std', torch.tensor(RGB_STD).view(1, 3, 1, 1), persistent=False)

    def logits(self, image_pm1: Tensor) -> Tensor:
        image_norm = ((image_pm1 + 1) / 2 - self.mean) / self.std
        # Its parts, not its forward pass, which would enlarge the whole batch's logits at once.
        return self.net.get_submodule('classifier')(self.net.get_submodule('backbone')(image_norm)['out'])


def load_deeplabv2(path: str) -> DeepLabV2:
    """DeepLab-v2 from a checkpoint; blocks, width and number of classes are read from it.

    Args:
        path: see `read_state_dict`; the older spellings (`scale.`, `aspp.stages.`, `proj.`) are understood.

    Raises:
        UsageError: if the file is missing, unreadable or of another layout (the first keys that differ are named).
    """
    state = {_respell(key): value for key, value in read_state_dict(path).items()}
    layers = enumerate(RESNET101_BLOCKS, start=2)
    blocks = [_count_blocks(state, f'base.layer{layer}') or default for layer, default in layers]
    width = _length(state, 'base.layer1.conv1.conv.weight', 64)
    num_classes = _count_classes(state, 'base.aspp.c0.bias', path)
    with torch.device('meta'):  # the file's tensors take the parameters' place
        net = DeepLabV2(num_classes, blocks, width)
    fill(net, state, path, 'DeepLab-v2')
    return net


def load_deeplabv3(path: str = '') -> tuple[nn.Module, int]:
    """torchvision's DeepLab-v3, without its auxiliary head, and its number of classes.

    Args:
        path: a state dict as for `load_deeplabv2`, with or without the auxiliary head; '' for torchvision's weights.

    Raises:
        UsageError: if the file is missing, unreadable or of another layout, or the download fails.
    """
    state = read_state_dict(path) if path else _download_deeplabv3()
    state = {key: value for key, value in state.items() if not key.startswith('aux_classifier.')}
    depth = 'resnet50' if state.keys().isdisjoint({'backbone.layer3.22.conv1.weight'}) else 'resnet101'
    num_classes = _count_classes(state, 'classifier.4.bias', path)
    with torch.device('meta'):
        build = getattr(segmentation, f'deeplabv3_{depth}')
        net: nn.Module = build(weights=None, weights_backbone=None, num_classes=num_classes, aux_loss=False)
    fill(net, state, path or V3_WEIGHTS.url, f'DeepLab-v3 with {depth}')
    return net, num_classes


def _download_deeplabv3() -> StateDict:
    try:
        return dict(V3_WEIGHTS.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:  # no network, no room, or another hash
        raise UsageError(
            f'deeplabv3 could not download {V3_WEIGHTS.url} ({error}); give a local file with --mask-checkpoint FILE, '
            'in a loop DeepLabV3Masks(FILE)'
        ) from error


def _respell(key: str) -> str:
    for old, new in V2_SPELLINGS.items():
        key = re.sub(old, new, key)
    return key


def _count_blocks(state: StateDict, layer: str) -> int:
    """The highest block number in a layer, so that a missing block in between is noticed; 0 without any."""
    numbers = [re.match(rf'{re.escape(layer)}\.block(\d+)\.', key) for key in state]
    return max((int(match[1]) for match in numbers if match), default=0)


def _count_classes(state: StateDict, bias: str, path: str) -> int:
    count = _length(state, bias, 21)
    if count > MAX_CLASSES:
        raise UsageError(f'{path} has {count} classes; a label map holds {MAX_CLASSES} and 255 = unknown')
    return count


def _length(state: StateDict, key: str, default: int) -> int:
    length = state[key].shape[0] if key in state and state[key].ndim else 0
    return length or default
