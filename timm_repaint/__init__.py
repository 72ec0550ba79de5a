"""Repaint (BMVC 2021): co-train a network with a generator that repaints its training images.

Start reading in `timm_repaint/repaint.py`: one batch through the mask source, the encoder, the generator, the task and
the discriminator.
"""

from timm_repaint.config import RepaintConfig
from timm_repaint.data.masked import with_masks
from timm_repaint.masks import MaskSource
from timm_repaint.masks.deeplab import DeepLabV2Masks, DeepLabV3Masks
from timm_repaint.masks.felzenszwalb import FelzenszwalbMasks
from timm_repaint.random_repaint import RandomRepaint
from timm_repaint.repaint import Repaint
from timm_repaint.saved import load_repainter
from timm_repaint.version import __version__ as __version__

__all__ = [
    'DeepLabV2Masks',
    'DeepLabV3Masks',
    'FelzenszwalbMasks',
    'MaskSource',
    'RandomRepaint',
    'Repaint',
    'RepaintConfig',
    'load_repainter',
    'with_masks',
]
