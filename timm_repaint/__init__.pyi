# The public names, loaded at use by __init__.py: torch and timm take seconds, and `timm-repaint --help` needs neither.
from .config import RepaintConfig as RepaintConfig
from .data.masked import with_masks as with_masks
from .masks.choice import MaskSource as MaskSource
from .masks.deeplab import DeepLabV2Masks as DeepLabV2Masks
from .masks.deeplab import DeepLabV3Masks as DeepLabV3Masks
from .masks.felzenszwalb import FelzenszwalbMasks as FelzenszwalbMasks
from .masks.superpixels import SuperpixelMasks as SuperpixelMasks
from .random_repaint import RandomRepaint as RandomRepaint
from .repaint import Repaint as Repaint
from .saved import load_repainter as load_repainter

__version__: str
