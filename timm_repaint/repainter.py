"""Repainter = E + G: (image, label map) -> the image with the same shapes and newly drawn texture and colour.

Source: Repaint section 3; with latent 'segment', every segment has its own latent besides the global one.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from timm_repaint.errors import UsageError
from timm_repaint.networks import label_maps
from timm_repaint.networks.encoder import Encoder, Posterior
from timm_repaint.networks.generator import SpadeGenerator, generator_spec
from timm_repaint.networks.label_maps import Draws, Shapes
from timm_repaint.precision import working_dtype

MIN_SIZE_PX = 32
GLOBAL_DIM = 64
SEGMENT_DIM = 8


class Repainted(NamedTuple):
    """What `Repainter` returns."""

    image_pm1: Tensor  # [B, 3, H, W] in [-1, 1], in autocast's type
    posterior: Posterior | None  # None: nothing was encoded, see painters.py
    shapes: Shapes  # of its label maps


def sample_latent(mu: Tensor, logvar: Tensor, generator: Draws = None, temperature: float = 1.0) -> Tensor:
    """Draw z from N(mu, temperature^2 exp(logvar)), with gradients to both (Kingma and Welling, ICLR 2014).

    Args:
        mu: [..., Z].
        logvar: [..., Z].
        generator: source of the random numbers; None for the global one.
        temperature: factor of the standard deviation; 0 gives mu.
    Returns:
        [..., Z].
    """
    noise = label_maps.draw_normal(tuple(mu.shape), mu.device, generator)
    return torch.addcmul(mu, torch.exp(0.5 * logvar), noise.to(mu.dtype), value=temperature)


class Repainter(nn.Module):
    """Encoder and generator. `Repainter(**repainter.config)` has the same layers.

    Args:
        latent: 'segment' (a latent a segment and a global one of 64) or 'global' (one for the picture).
        latent_dim: size of a segment's latent (None: 8) or of the global one (None: 64).
        width: channels of the encoder's first layer and of the light generator at half size.
        generator: 'light', or 'spade' for the full-size generator of SPADE.
        num_labels: number of classes of semantic maps; None for segment maps.
        temperature: factor of the latents' standard deviation.
        detail: 'keep': G repaints the image's own detail, what is left without its segments' mean colours; 'swap': each
            segment gets that of a random place and image of the batch; 'none': all of the repaint comes from labels and
            latents, as in the paper.
    Raises:
        ValueError: if the latent, generator or detail is unknown, or a size is below 1.
    """

    def __init__(
        self,
        latent: str = 'segment',
        latent_dim: int | None = None,
        width: int = 16,
        generator: str = 'light',
        num_labels: int | None = None,
        temperature: float = 1.0,
        detail: str = 'keep',
    ):
        super().__init__()
        if latent_dim is None:
            latent_dim = SEGMENT_DIM if latent == 'segment' else GLOBAL_DIM
        for name, value in {'latent_dim': latent_dim, 'width': width, 'num_labels': num_labels}.items():
            if value is not None and value < 1:
                raise ValueError(f'{name} is {value}, must be at least 1')
        self.config: dict[str, Any] = {'latent': latent, 'latent_dim': latent_dim, 'width': width}
        self.config |= {'generator': generator, 'num_labels': num_labels, 'temperature': temperature, 'detail': detail}
        self.temperature = temperature
        self.detail = label_maps.check_choice('detail', detail, label_maps.DETAILS)
        self.num_labels = num_labels
        per_segment = latent == 'segment'
        global_dim = GLOBAL_DIM if per_segment else latent_dim
        if per_segment:
            self.cond_channels = latent_dim + 1 + (0 if num_labels is None else num_labels + 1)
        else:
            self.cond_channels = label_maps.num_condition_channels(num_labels)
        self.encoder = Encoder(latent, global_dim, latent_dim, width)
        spec = generator_spec(generator, width)
        self.generator = SpadeGenerator(self.cond_channels, global_dim, spec, with_detail=detail != 'none')

    def forward(self, image_pm1: Tensor, labels: Tensor, generator: Draws = None) -> Repainted:
        """Repaint a batch.

        Args:
            image_pm1: [B, 3, H, W] in [-1, 1], H and W at least 32.
            labels: [B, H, W] int64, segment ids of any value or class ids (255 = unknown).
            generator: source of the random numbers; None for the global one.
        Returns:
            The repaint, in [-1, 1], with the posterior (for the KL divergence).
        Raises:
            ValueError: if the image or the label map has a wrong shape.
        """
        check_inputs(image_pm1, labels)
        shapes = label_maps.find_shapes(labels)
        posterior = self.encoder(image_pm1, shapes.slots)
        return Repainted(self.paint(image_pm1, posterior, shapes, generator), posterior, shapes)

    def paint(
        self, image_pm1: Tensor, posterior: Posterior, labels: Tensor | Shapes, generator: Draws = None
    ) -> Tensor:
        """Draw the latents and paint; the posterior may be of another image, the label maps as `find_shapes` has them.

        Returns:
            [B, 3, H, W] in [-1, 1], in autocast's type.
        """
        z = sample_latent(posterior.global_mu, posterior.global_logvar, generator, self.temperature)  # [B, Z]
        shapes = label_maps.find_shapes(labels)
        condition = self.condition(posterior, shapes, generator).to(working_dtype(z))  # [B, K, H, W]
        detail = label_maps.draw_detail(self.detail, image_pm1, shapes.slots, generator)  # [B, 3, H, W]
        return self.generator(condition, z, detail)

    def condition(self, posterior: Posterior, labels: Tensor | Shapes, generator: Draws = None) -> Tensor:
        """What G sees at full size: segments' drawn codes and boundaries, or what D sees with latent 'global'.

        Args:
            posterior: of the segments' latents.
            labels: [B, H, W] int64, or what `find_shapes` makes of it.
            generator: source of the random numbers; None for the global one.
        Returns:
            [B, cond_channels, H, W], codes in `working_dtype`.
        """
        shapes = label_maps.find_shapes(labels)
        if posterior.segment_mu is None or posterior.segment_logvar is None:
            return label_maps.discriminator_condition(shapes, self.num_labels, generator)
        # [B, 256, Z]
        codes = sample_latent(posterior.segment_mu, posterior.segment_logvar, generator, self.temperature)
        codes = codes.to(working_dtype(codes))
        classes = [] if self.num_labels is None else [label_maps.one_hot(shapes.labels, self.num_labels)]
        return label_maps.paint_segments(codes, shapes.slots, shapes.boundary, *classes)


def check_inputs(image_pm1: Tensor, labels: Tensor) -> None:
    """Stop on an image or a label map of a wrong shape.

    Raises:
        UsageError: a ValueError; saying which.
    """
    if image_pm1.ndim != 4 or image_pm1.shape[1] != 3:
        raise UsageError(f'the image batch is {tuple(image_pm1.shape)}, must be [B, 3, H, W]: repainting needs RGB')
    batch, _, height, width = image_pm1.shape
    if min(height, width) < MIN_SIZE_PX:
        raise UsageError(f'the images are {height}x{width} px, repainting needs {MIN_SIZE_PX}; use a larger input size')
    if tuple(labels.shape) != (batch, height, width):
        raise UsageError(f'the label maps are {tuple(labels.shape)}, the images need {(batch, height, width)}')
