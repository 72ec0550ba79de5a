"""Masks by Felzenszwalb and Huttenlocher's graph segmentation: no training, no classes, any image size."""

import importlib
from typing import Any

import numpy as np
from skimage.segmentation import felzenszwalb

from timm_repaint.errors import UsageError
from timm_repaint.masks.on_device import check_image

# The trial's values at 32 px; growing with the shorter side keeps photographs of 64 to 224 px near 40 segments.
REFERENCE_SIDE_PX = 32
REFERENCE_SCALE = 50.0
REFERENCE_MIN_SIZE_PX = 10
MAX_SIGMA = 100  # pixels; a blur's cost grows with it
DEFAULT_SIGMA = 0.5
MAX_SEGMENTS = 2**16  # a label map is uint16


BACKENDS = ('skimage', 'opencv')


def _with_opencv(image_u8: np.ndarray, scale: float, sigma: float, min_size: int) -> np.ndarray:
    """As scikit-image: an edge weighs the colours' Euclidean distance on 0..255; scale and min_size mean the same."""
    cv2: Any = importlib.import_module('cv2')
    cv2.setNumThreads(1)  # OpenCV's own threads do not survive a fork: loader workers would hang
    segmentation = cv2.ximgproc.segmentation.createGraphSegmentation(sigma=sigma, k=scale, min_size=min_size)
    return segmentation.processImage(np.ascontiguousarray(image_u8))


def has_opencv() -> bool:
    """Whether OpenCV is installed with its `ximgproc` module, which only the contrib packages have."""
    try:
        import cv2
    except ImportError:
        return False
    return hasattr(cv2, 'ximgproc')


def resolve_backend(backend: str) -> str:
    """The backend to use: 'auto' is OpenCV where it is installed, else scikit-image.

    Raises:
        UsageError: if the name is unknown, or OpenCV is asked for and not installed.
    """
    if backend == 'auto':
        return 'opencv' if has_opencv() else 'skimage'
    if backend not in BACKENDS:
        raise UsageError(f'fh backend {backend!r} is unknown; choose one of: auto, {", ".join(BACKENDS)}')
    if backend == 'opencv' and not has_opencv():
        raise UsageError("fh backend opencv needs OpenCV with ximgproc; install it: pip install '.[fast]'")
    return backend


class FelzenszwalbMasks:
    """Cuts an image into segments of similar colour that follow the objects' outlines.

    Source: P. Felzenszwalb and D. Huttenlocher, Efficient graph-based image segmentation, IJCV 2004.

    Args:
        scale: how unlike two neighbouring segments must be to stay apart; larger gives larger segments.
            None: 50 at a shorter side of 32 px, in proportion to it at other sizes.
        sigma: standard deviation in pixels of the blur before the cut.
        min_size: smallest segment in pixels; smaller ones join a neighbour. None: 10 at a shorter side of 32 px, in
            proportion to it at other sizes.
        backend: 'skimage', 'opencv' (2 to 3 times faster; the cuts differ a little) or 'auto'.

    Raises:
        UsageError: a ValueError; if scale is not above 0, sigma is below 0 or above 100, min_size is below 1, or the
            backend is unknown or not installed.
    """

    kind: str = 'segment'
    num_labels: int | None = None
    on_device: bool = False

    def __init__(
        self,
        scale: float | None = None,
        sigma: float = DEFAULT_SIGMA,
        min_size: int | None = None,
        backend: str = 'auto',
    ) -> None:
        if scale is not None and not scale > 0:
            raise UsageError(f'fh scale is {scale}; it must be above 0 (or None: chosen by image size)')
        if not 0 <= sigma <= MAX_SIGMA:
            raise UsageError(f'fh sigma is {sigma}; it must be 0 or above, at most {MAX_SIGMA}')
        if min_size is not None and min_size < 1:
            raise UsageError(f'fh min size is {min_size}; it must be 1 or above (or None: chosen by image size)')
        self.scale = scale
        self.sigma = sigma
        self.min_size = min_size
        self.backend = resolve_backend(backend)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the masks; a cache's manifest records it."""
        return {'scale': self.scale, 'sigma': self.sigma, 'min_size': self.min_size, 'backend': self.backend}

    def parameters_for(self, height: int, width: int) -> tuple[float, int]:
        """Scale and min_size (pixels) used for an image of this size."""
        ratio = min(height, width) / REFERENCE_SIDE_PX
        scale = REFERENCE_SCALE * ratio if self.scale is None else self.scale
        min_size = max(1, round(REFERENCE_MIN_SIZE_PX * ratio)) if self.min_size is None else self.min_size
        return scale, min_size

    def __call__(self, image_u8: np.ndarray) -> np.ndarray:
        """Segments one image.

        Args:
            image_u8: RGB, [H, W, 3] uint8.

        Returns:
            Segment ids, [H, W] uint16: 0 to n - 1, each used, in no meaningful order.

        Raises:
            ValueError: if image_u8 is not [H, W, 3] uint8, or falls into more than 65536 segments.
        """
        check_image(image_u8, type(self).__name__)
        scale, min_size = self.parameters_for(*image_u8.shape[:2])
        if self.backend == 'opencv':
            segments = _with_opencv(image_u8, scale, self.sigma, min_size)  # [H, W]
        else:
            segments = felzenszwalb(image_u8, scale=scale, sigma=self.sigma, min_size=min_size, channel_axis=-1)
        num_segments = int(segments.max()) + 1
        if num_segments > MAX_SEGMENTS:
            raise ValueError(
                f'{num_segments} segments, a label map holds {MAX_SEGMENTS}; raise fh scale or fh min size'
            )
        return segments.astype(np.uint16)
