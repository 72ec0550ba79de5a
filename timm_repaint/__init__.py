"""Repaint (BMVC 2021): train a network on repaints of its images, by chance or by a generator that learns along.

Start reading in `timm_repaint/repaint.py`: one batch through the mask source, the encoder, the generator, the task and
the discriminator. The public names are listed in `__init__.pyi`, each with its home.
"""

import lazy_loader

from timm_repaint.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
