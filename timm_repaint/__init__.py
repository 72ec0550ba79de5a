"""Repaint (BMVC 2021) for timm: co-train a task network with a generator that repaints its training images.

Start reading in `timm_repaint/task.py`: one batch through the mask source, the encoder, the generator, the task and
the discriminator.
"""

__version__ = '0.1.0'
