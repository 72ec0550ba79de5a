"""Repaint (BMVC 2021): co-train a network with a generator that repaints its training images.

Start reading in `timm_repaint/repaint.py`: one batch through the mask source, the encoder, the generator, the task and
the discriminator.
"""

from typing import TYPE_CHECKING

from timm_repaint.version import __version__ as __version__

if TYPE_CHECKING:
    from timm_repaint.config import RepaintConfig
    from timm_repaint.data.masked import with_masks
    from timm_repaint.masks.choice import MaskSource
    from timm_repaint.masks.deeplab import DeepLabV2Masks, DeepLabV3Masks
    from timm_repaint.masks.felzenszwalb import FelzenszwalbMasks
    from timm_repaint.masks.superpixels import SuperpixelMasks
    from timm_repaint.random_repaint import RandomRepaint
    from timm_repaint.repaint import Repaint
    from timm_repaint.saved import load_repainter
else:
    # Loaded at use: torch and timm take seconds, and `timm-repaint --help` needs neither.
    _HOMES = {
        'DeepLabV2Masks': 'masks.deeplab',
        'DeepLabV3Masks': 'masks.deeplab',
        'FelzenszwalbMasks': 'masks.felzenszwalb',
        'MaskSource': 'masks.choice',
        'RandomRepaint': 'random_repaint',
        'Repaint': 'repaint',
        'RepaintConfig': 'config',
        'SuperpixelMasks': 'masks.superpixels',
        'load_repainter': 'saved',
        'with_masks': 'data.masked',
    }

    def __getattr__(name):
        from importlib import import_module

        if name not in _HOMES:
            raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
        return getattr(import_module(f'{__name__}.{_HOMES[name]}'), name)

    def __dir__():
        return sorted({*globals(), *_HOMES})


__all__ = [
    'DeepLabV2Masks',
    'DeepLabV3Masks',
    'FelzenszwalbMasks',
    'MaskSource',
    'RandomRepaint',
    'Repaint',
    'RepaintConfig',
    'SuperpixelMasks',
    'load_repainter',
    'with_masks',
]
