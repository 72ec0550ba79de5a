"""RandomRepaint: the painters without a network as a transform of one image."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from timm_repaint.errors import UsageError
from timm_repaint.masks.choice import find_cpu_source
from timm_repaint.networks.label_maps import DETAILS
from timm_repaint.painters import NO_DETAIL, PAINTERS, RANDCONV, SegmentPainter
from timm_repaint.pictures import to_pm1, to_u8


class RandomRepaint(v2.Transform):
    """Gives an image's segments new colours, at random; boxes, masks and labels beside it stay as they are.

    Masks that are PIL images are to be wrapped in `tv_tensors.Mask`.
    A transform of torchvision's v2 pipelines; in albumentations: `A.Lambda(image=RandomRepaint(p=1), p=0.5)`.

    Args:
        p: Share of the images that is repainted, 0 to 1.
        painter: 'shift' (the image with a random colour shift a segment), 'jitter' (that without the image's detail),
            'mean' (each segment in its mean colour), 'randconv' (the image under a random filter, without masks) or
            'shift-randconv' (the shift, and every second image, at random, under such a filter).
        masks: 'fh', 'superpixels' (faster by 4 times and more) or a mask source that works on the CPU; 'randconv' needs
            none.
        detail: Of the shifts: 'keep' the image's own, 'swap' it with that of a random place, or 'none'.

    Raises:
        ValueError: if a value is out of its limits.
    """

    _transformed_types = (Image.Image, tv_tensors.Image, tv_tensors.Video, np.ndarray, v2.functional.is_pure_tensor)

    def __init__(self, p: float = 0.5, painter: str = 'shift', masks: Any = 'fh', detail: str = 'keep') -> None:
        super().__init__()
        if not isinstance(p, (int, float, np.number)) or not 0 <= p <= 1:
            raise UsageError(f'p is {p!r}; it must be from 0 to 1')
        if painter in NO_DETAIL and detail == 'swap':
            raise UsageError(f"painter {painter!r} paints without detail; use 'shift'")
        if painter not in PAINTERS:
            raise UsageError(f'painter is {painter!r}; choose one of {", ".join(PAINTERS)}')
        if detail not in DETAILS:
            raise UsageError(f'detail is {detail!r}; choose one of {", ".join(DETAILS)}')
        self.p, self.painter, self.detail = p, painter, detail
        self.source = None if painter == RANDCONV else find_cpu_source(masks)
        self.repainter = SegmentPainter(painter, getattr(self.source, 'num_labels', None), detail)

    def forward(self, image: Any, *beside: Any, **by_name: Any) -> Any:
        """Repaint the image among the inputs: RGB, a PIL image, a uint8 tensor [3, H, W] or a uint8 array [H, W, 3].

        Albumentations gives parameters of its own by name, which have no meaning here.

        Raises:
            UsageError: a ValueError; if the image is of another kind or smaller than 32 px, or a target has a name.
        """
        for name, value in by_name.items():
            if isinstance(value, (dict, list, Tensor, Image.Image)):
                raise UsageError(
                    f'got {name}=…; RandomRepaint takes what is beside the image by place: (image, {name})'
                )
        if torch.rand(()) >= self.p:
            return (image, *beside) if beside else image
        return super().forward(image, *beside)

    def _needs_transform_list(self, flat_inputs: list[Any]) -> list[bool]:
        """Arrays beside a picture are masks and the like, and no images; boxes and labels are no pictures."""
        found = [is_picture(each) for each in flat_inputs]
        if any(found):
            named = [isinstance(each, (Image.Image, tv_tensors.Image)) for each in flat_inputs]
            return named if any(named) else [place == found.index(True) for place in range(len(found))]
        needs: list[bool] = super()._needs_transform_list(flat_inputs)
        arrays = [isinstance(each, np.ndarray) for each in flat_inputs]
        pictures = [array and each.ndim == 3 for array, each in zip(arrays, flat_inputs, strict=True)]
        return pictures if any(pictures) else needs

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """One image, [3, H, W] or as above, of the same kind."""
        image_u8 = to_array(inpt)
        labels_hw = self.source(image_u8) if self.source else np.zeros(image_u8.shape[:2], np.int64)
        labels = torch.from_numpy(labels_hw.astype(np.int64))[None]
        with torch.no_grad():
            repaint_u8 = to_u8(self.repainter(to_pm1([image_u8]), labels).image_pm1[0])
        if isinstance(inpt, Image.Image):
            return Image.fromarray(repaint_u8)
        if isinstance(inpt, np.ndarray):
            return repaint_u8
        tensor = torch.from_numpy(repaint_u8).permute(2, 0, 1).contiguous().to(inpt.device)
        return tv_tensors.wrap(tensor, like=inpt) if isinstance(inpt, tv_tensors.TVTensor) else tensor

    def extra_repr(self) -> str:
        return f'p={self.p}, painter={self.painter!r}, detail={self.detail!r}'


def is_picture(value: Any) -> bool:
    """Whether it is a PIL image, or a tensor that is an RGB image or says that it is one."""
    if type(value) is Tensor:
        return value.dtype == torch.uint8 and value.ndim == 3 and len(value) == 3
    return isinstance(value, (Image.Image, tv_tensors.Image))


def to_array(image: Any) -> np.ndarray:
    """An RGB image as [H, W, 3] uint8.

    Raises:
        UsageError: if it is none.
    """
    array: Any = image
    if isinstance(image, Image.Image):
        array = np.asarray(image) if image.mode == 'RGB' else None
    elif isinstance(image, Tensor):
        array = image.permute(1, 2, 0).contiguous().cpu().numpy() if image.ndim == 3 else None
    if array is None or array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        kind = image.mode if isinstance(image, Image.Image) else f'{tuple(image.shape)} {image.dtype}'
        raise UsageError(
            f'got an image {type(image).__name__} {kind}; RandomRepaint takes RGB: a PIL image, a uint8 tensor '
            '[3, H, W] or a uint8 array [H, W, 3]. Put it ahead of conversions to float and of normalisation, and wrap '
            'a mask beside the image in tv_tensors.Mask'
        )
    return np.ascontiguousarray(array)
