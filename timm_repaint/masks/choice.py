"""The choice of a mask source: by the options of a command line, or by name. A new source is a line in BUILDERS."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from timm_repaint.errors import UsageError
from timm_repaint.masks.deeplab import DeepLabV2Masks, DeepLabV3Masks
from timm_repaint.masks.felzenszwalb import DEFAULT_SIGMA, MAX_SIGMA, FelzenszwalbMasks
from timm_repaint.masks.superpixels import SuperpixelMasks
from timm_repaint.option import ABOVE_ZERO, ONE_OR_MORE, Limit, option

SIGMA = Limit(lambda value: 0 <= value <= MAX_SIGMA, f'0 or more, at most {MAX_SIGMA}')
MASKS, STORED_MASKS = 'Repaint: masks', 'Repaint: stored masks'  # groups of the command line
made, stored = partial(option, group=MASKS), partial(option, group=STORED_MASKS)
STORED = ('folder', 'outlines')  # have masks and make none
NETWORKS = ('deeplabv2', 'deeplabv3')  # masks by weights of a file


class MaskSource(Protocol):
    """What a mask source offers; it must pickle, since loader workers call it.

    Attributes:
        kind: 'segment' (ids without meaning) or 'semantic' (class ids, 255 = unknown).
        num_labels: number of classes of a semantic source, None for a segment source.
        on_device: whether it works on batches where they are, by `to(device)` and `labels(image_pm1)`, instead of in
            loader workers.
    """

    kind: str
    num_labels: int | None
    on_device: bool

    def __call__(self, image_u8: np.ndarray) -> np.ndarray:
        """Image [H, W, 3] uint8 to label map [H, W] uint16."""


def _build_deeplabv2(options: 'MaskOptions') -> MaskSource:
    if not options.mask_checkpoint:
        raise UsageError('--mask deeplabv2 needs --mask-checkpoint FILE, a COCO-Stuff or VOC checkpoint')
    return DeepLabV2Masks(options.mask_checkpoint)


BUILDERS: dict[str, Callable[['MaskOptions'], MaskSource]] = {
    'fh': lambda options: FelzenszwalbMasks(
        options.fh_scale, options.fh_sigma, options.fh_min_size, options.fh_backend
    ),
    'superpixels': lambda _: SuperpixelMasks(),
    'deeplabv2': _build_deeplabv2,
    'deeplabv3': lambda options: DeepLabV3Masks(options.mask_checkpoint),
}
MASK_SOURCES = (*BUILDERS, *STORED)


@dataclass(frozen=True)
class MaskOptions:
    """Where a run's masks come from."""

    mask: str = made(
        'fh',
        'source of the masks; fh: Felzenszwalb-Huttenlocher segments; superpixels: segments cut on the device; '
        'deeplabv2, deeplabv3: classes by a network; folder: PNG label maps; outlines: those of --dataset shapes',
        paper='fh, or DeepLab-v2',
        choices=tuple(sorted(MASK_SOURCES)),
    )
    fh_scale: float | None = made(
        None, 'fh: higher gives larger segments; unset: from the image size', limit=ABOVE_ZERO
    )
    fh_sigma: float = made(DEFAULT_SIGMA, 'fh: blur ahead of the segmentation', metavar='PX', limit=SIGMA)
    fh_min_size: int | None = made(
        None, 'fh: pixels of the smallest segment; unset: from the image size', metavar='PX', limit=ONE_OR_MORE
    )
    fh_backend: str = made(
        'auto',
        "fh: opencv (pip install '.[fast]') is 2 to 3 times faster than skimage; auto: opencv where it is installed",
        choices=('auto', 'opencv', 'skimage'),
        roles='machine',
    )
    mask_checkpoint: str = made('', 'deeplabv2, deeplabv3: file of the weights', metavar='FILE', roles='data')
    mask_dir: str = stored(
        '',
        'masks made by timm-repaint masks, in a tree like that of the images; folder: your own',
        metavar='DIR',
        roles='data',
    )
    mask_classes: int | None = stored(
        None, 'folder: labels are classes 0 to N - 1, and 255 for unknown; unset: segments, whose ids mean nothing'
    )

    @classmethod
    def of(cls, args: Any) -> 'MaskOptions':
        """Those of a command line or of a saved run, whose version may have had fewer."""
        given = vars(args)
        return cls(**{name: given[name] for name in cls.__dataclass_fields__ if name in given})


def idle_beside(mask: str) -> Iterator[str]:
    """Names of MaskOptions that do nothing with a source of this name."""
    if mask != 'fh':
        yield from ('fh_scale', 'fh_sigma', 'fh_min_size', 'fh_backend')
    if mask not in NETWORKS:
        yield 'mask_checkpoint'


def create_mask_source(options: MaskOptions) -> MaskSource:
    """Builds the mask source that the options name.

    Raises:
        UsageError: a ValueError; if the name is unknown, the source makes no masks, or refuses its options.
    """
    if options.mask not in MASK_SOURCES:
        raise UsageError(f'mask source {options.mask!r} is unknown; choose one of: {", ".join(MASK_SOURCES)}')
    if options.mask in STORED:
        raise UsageError(
            f'--mask {options.mask} has masks and makes none: images outside the data set need a run with another '
            '--mask'
        )
    return BUILDERS[options.mask](options)


# Sources that need no settings.
NAMED_SOURCES = {'fh': FelzenszwalbMasks, 'superpixels': SuperpixelMasks, 'deeplabv3': DeepLabV3Masks}


def find_source(masks: Any) -> Any:
    """The mask source of a name, or the source itself.

    Raises:
        UsageError: if there is no such name, or the object is no mask source.
    """
    if isinstance(masks, str):
        if masks not in NAMED_SOURCES:
            raise UsageError(
                f'masks is {masks!r}; choose one of {", ".join(NAMED_SOURCES)}, give a mask source such as '
                'DeepLabV2Masks(FILE), or None where label maps come with the images'
            )
        return NAMED_SOURCES[masks]()
    if isinstance(masks, type):
        raise UsageError(f'masks is the class {masks.__name__}; give one of it: {masks.__name__}(…)')
    needed = ['__call__', 'kind', 'num_labels', 'on_device']
    needed += ['to', 'labels'] if getattr(masks, 'on_device', False) else []
    lacks = [name for name in needed if not hasattr(masks, name)]
    if masks is not None and lacks:
        raise UsageError(
            f'masks is a {type(masks).__name__} without {", ".join(lacks)}; it must be a name, a MaskSource or None'
        )
    return masks


def find_cpu_source(masks: Any) -> Any:
    """The same of a source that works on the CPU, image by image.

    Raises:
        UsageError: if it works on the device alone, or there is none.
    """
    source = find_source(masks)
    if source is None or (source.on_device and not isinstance(source, SuperpixelMasks)):
        raise UsageError(
            f"masks is {masks!r}; it must work on the CPU, image by image: 'fh', 'superpixels' or your own source; "
            'a network belongs into Repaint(masks=…)'
        )
    return source
