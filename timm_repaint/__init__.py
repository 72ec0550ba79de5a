"""Repaint (BMVC 2021): co-train a network with a generator that repaints its training images.

Start reading in `timm_repaint/repaint.py`: one batch through the mask source, the encoder, the generator, the task and
the discriminator. The public names are listed in `__init__.pyi`, each with its home.
"""

import lazy_loader

from timm_repaint.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
