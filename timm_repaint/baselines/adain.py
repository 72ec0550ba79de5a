"""Style transfer by adaptive instance normalization, with weights from files.

Source: Huang and Belongie, "Arbitrary style transfer in real-time with adaptive instance normalization", ICCV 2017.
The weights' keys are the places of the convolutions among all layers of a plain sequence, as in the published files
`vgg_normalised.pth` and `decoder.pth`.
"""

import torch
from torch import Tensor, nn

from timm_repaint.weights import fill, read_state_dict

# Channels behind each 3x3 convolution; VGG-19 up to relu4_1, and back.
VGG_PLAN = (64, 64, 'pool', 128, 128, 'pool', 256, 256, 256, 256, 'pool', 512)
DECODER_PLAN = (256, 'up', 256, 256, 256, 128, 'up', 128, 64, 'up', 64, 3)
VARIANCE_FLOOR = 1e-5


class AdaIN(nn.Module):
    """Gives a content image the colours and textures of a style image."""

    def __init__(self) -> None:
        super().__init__()
        colours: list[nn.Module] = [nn.Conv2d(3, 3, 1)]  # from RGB in [0, 1] to what VGG was trained on
        self.encoder = nn.Sequential(*colours, *_layers(VGG_PLAN, 3))
        self.decoder = nn.Sequential(*_layers(DECODER_PLAN, 512)[:-1])  # no ReLU behind the picture

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        """[B, 3, H, W] and [B, 3, h, w], RGB in [0, 1] -> [B, 3, H, W] in [0, 1], in the style alone (alpha 1)."""
        features = match_statistics(self.encoder(content), self.encoder(style))
        picture = self.decoder(features)  # sides are multiples of 8
        return picture[..., : content.shape[-2], : content.shape[-1]].clamp(0, 1)


def _layers(plan: tuple[int | str, ...], channels: int) -> list[nn.Module]:
    """Convolutions with reflected borders and ReLUs; maps are halved at 'pool' and doubled at 'up'."""
    layers: list[nn.Module] = []
    for step in plan:
        if step == 'pool':
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        elif isinstance(step, int):
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, step, 3), nn.ReLU()]
            channels = step
        else:
            layers.append(nn.Upsample(scale_factor=2, mode='nearest'))
    return layers


def match_statistics(content: Tensor, style: Tensor) -> Tensor:
    """The content's features [B, C, h, w] with the mean and standard deviation of each channel of the style's."""
    content_variance, content_mean = torch.var_mean(content, dim=(2, 3), keepdim=True)
    style_variance, style_mean = torch.var_mean(style, dim=(2, 3), keepdim=True)
    scale = ((style_variance + VARIANCE_FLOOR) / (content_variance + VARIANCE_FLOOR)).sqrt()
    return (content - content_mean) * scale + style_mean


def load_adain(vgg_path: str, decoder_path: str) -> AdaIN:
    """The networks from two files; layers of VGG behind relu4_1 may be there and are not used.

    Raises:
        UsageError: if a file is missing, unreadable, or of another layout.
    """
    networks = AdaIN()
    parts = (networks.encoder, networks.decoder)
    kinds = ('the VGG (vgg_normalised.pth)', 'the decoder (decoder.pth)')
    for network, path, kind in zip(parts, (vgg_path, decoder_path), kinds, strict=True):
        wanted, state = network.state_dict(), read_state_dict(path)
        fill(network, {key: state[key] for key in state if key in wanted}, path, kind)
    return networks.eval().requires_grad_(False)
