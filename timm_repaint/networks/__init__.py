"""The networks E, G and D, their SPADE blocks, and what turns label maps into their inputs."""

from timm_repaint.networks.discriminator import Discriminator, create_discriminator, split_logits
from timm_repaint.networks.encoder import LATENTS, Encoder, Posterior
from timm_repaint.networks.generator import GENERATORS, GeneratorSpec, SpadeGenerator, generator_spec
from timm_repaint.networks.label_maps import (
    DETAILS,
    SEGMENT_SLOTS,
    Shapes,
    boundary_map,
    check_choice,
    discriminator_condition,
    draw_detail,
    draw_normal,
    find_shapes,
    num_condition_channels,
    one_hot,
    paint_segments,
    pool_segments,
    resize_labels,
    segment_slots,
)
from timm_repaint.networks.spade import Spade, SpadeResBlock, SpectralConv2d

__all__ = [
    'DETAILS',
    'GENERATORS',
    'LATENTS',
    'SEGMENT_SLOTS',
    'Discriminator',
    'Encoder',
    'GeneratorSpec',
    'Posterior',
    'Shapes',
    'Spade',
    'SpadeGenerator',
    'SpadeResBlock',
    'SpectralConv2d',
    'boundary_map',
    'check_choice',
    'create_discriminator',
    'discriminator_condition',
    'draw_detail',
    'draw_normal',
    'find_shapes',
    'generator_spec',
    'num_condition_channels',
    'one_hot',
    'paint_segments',
    'pool_segments',
    'resize_labels',
    'segment_slots',
    'split_logits',
]
