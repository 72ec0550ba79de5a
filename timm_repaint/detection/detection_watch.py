"""Galleries with boxes, and the leak probe of a detector."""

from typing import Any

import numpy as np
import torch
from effdet import DetBenchPredict
from torch import Tensor, nn
from torchvision.ops import box_iou
from torchvision.utils import draw_bounding_boxes

from timm_repaint.data.samples import Samples
from timm_repaint.detection.coco_loaders import DetectionDataset, objects_tensor, read_images
from timm_repaint.detection.evaluate import create_bench
from timm_repaint.detection.transforms import eval_transform
from timm_repaint.engine.parts import Run
from timm_repaint.engine.repaint_watch import RepaintWatch

BOX_COLOUR = (255, 40, 40)
FOUND_IOU = 0.5


class DetectionWatch(RepaintWatch):
    """`RepaintWatch` for images with boxes: targets are [n, 5] tensors, as `objects_tensor` gives them."""

    unseen_count = 64

    def validation_images(self, run: Run) -> Any:
        images = read_images(run.args, run.args.val_split, run.data_config['input_size'][-1], training=False)
        return DetectionDataset(images, plain_transform(run))

    def pick(self, run: Run, dataset: DetectionDataset, masks: Any, count: int) -> Samples:
        """Images spread evenly over the data set, resized as validation sees them, with their masks and objects."""
        fixed = DetectionDataset(dataset.images, plain_transform(run), masks)
        count = min(count, len(fixed))
        images_u8, label_maps, targets = [], [], []
        for number in range(count):
            moved, labels, _ = fixed.read(number * len(fixed) // count)
            image_u8 = moved.image.permute(1, 2, 0).contiguous().numpy()
            images_u8.append(image_u8)
            label_maps.append((masks(image_u8) if labels is None else labels).astype(np.uint16))
            targets.append(objects_tensor(moved))
        return Samples(images_u8, label_maps, targets)

    def judge(self, model: nn.Module) -> nn.Module:
        """See `RepaintWatch`."""
        return create_bench(model, DetBenchPredict)

    def hits(self, outputs: Tensor, targets: list[Any]) -> Tensor:
        """T is right about an object if the surest detection that overlaps it has its class."""
        return torch.cat([found_objects(objects, found) for objects, found in zip(targets, outputs, strict=True)])

    def drawn(self, images_u8: list[np.ndarray], samples: Samples) -> list[np.ndarray]:
        """With the boxes of the samples."""
        return [draw_boxes(image, objects) for image, objects in zip(images_u8, samples.targets, strict=True)]


def plain_transform(run: Run) -> Any:
    """What validation does with images."""
    config = run.data_config
    return eval_transform(config['input_size'][-1], config['mean'], config['interpolation'])


def draw_boxes(image_u8: np.ndarray, objects: Tensor) -> np.ndarray:
    """An image [H, W, 3] uint8 with the outlines of its objects, [n, 5]."""
    if not len(objects):
        return image_u8
    boxes = objects[:, [1, 0, 3, 2]]
    width = max(1, image_u8.shape[0] // 128)
    drawn = draw_bounding_boxes(torch.from_numpy(image_u8).permute(2, 0, 1), boxes, colors=BOX_COLOUR, width=width)
    return drawn.permute(1, 2, 0).numpy()


def found_objects(objects: Tensor, detections: Tensor) -> Tensor:
    """Which objects are found: the surest detection with an overlap (IoU) of 0.5 or more has the object's class.

    Args:
        objects: y0, x0, y1, x1, class, [n, 5].
        detections: x0, y0, x1, y1, score, class, the surest first, [M, 6]; class 0 is none.

    Returns:
        [n] bool.
    """
    detections = detections[detections[:, 5] > 0]
    if not len(detections):
        return torch.zeros(len(objects), dtype=torch.bool)
    overlaps = box_iou(objects[:, [1, 0, 3, 2]], detections[:, :4]) >= FOUND_IOU  # [n, M]
    surest = overlaps.int().argmax(dim=1)  # the first one that overlaps, or 0
    return overlaps.any(dim=1) & (detections[surest, 5] == objects[:, 4])
