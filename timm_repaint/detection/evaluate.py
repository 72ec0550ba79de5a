"""Validation of a detector: loss, and COCO's average precision by faster-coco-eval."""

from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from effdet import DetBenchPredict, DetBenchTrain
from timm import utils
from timm.utils import unwrap_model
from torch import Tensor, nn

from timm_repaint.detection.annotations import Annotations
from timm_repaint.detection.coco_loaders import pad_objects
from timm_repaint.detection.transforms import fit_scale
from timm_repaint.engine.epoch import MeanMeter
from timm_repaint.engine.loop import to_device
from timm_repaint.gather import gather_rows
from timm_repaint.log import logger

METRICS = ('map', 'ap50')


def validate(
    model: nn.Module,
    loader: Any,
    loss_fn: nn.Module | None,
    args: Namespace,
    device: torch.device,
    amp_autocast: Callable[[], AbstractContextManager] = nullcontext,
    model_dtype: torch.dtype | None = None,
    log_suffix: str = '',
) -> OrderedDict[str, float]:
    """'loss', 'map' (COCO's mAP@0.5:0.95) and 'ap50' (AP@0.5) in percent, over all processes.

    The arguments are those of `engine/loop.py`; `loss_fn` is a classifier's and not used.
    """
    annotations = loader.dataset.annotations
    bench = create_bench(model, DetBenchTrain)
    losses, found, numbers = MeanMeter(), [], []
    last_idx = len(loader) - 1
    with torch.inference_mode():
        for batch_idx, batch in enumerate(loader):
            images, indices = to_device(batch, args, device, model_dtype)
            with amp_autocast():
                output = bench(images, bench_target(annotations, indices.tolist(), images.shape[-1], device))
            losses.update(output['loss'], len(indices))
            found.append(output['detections'].float())
            numbers.append(indices)
            if utils.is_primary(args) and (batch_idx == last_idx or batch_idx % args.log_interval == 0):
                logger.info('Test%s: [%4d/%d]  Loss: %6.3f', log_suffix, batch_idx, last_idx, float(losses.latest))
        detections, indices = gather_rows(torch.cat(found)), gather_rows(torch.cat(numbers))
    precision = torch.full((len(METRICS),), float('nan'), device=device)
    if utils.is_primary(args):
        precision = torch.tensor(average_precision(annotations, indices.tolist(), detections.cpu()), device=device)
        logger.info('Test%s: mAP@0.5:0.95 %.2f  AP@0.5 %.2f', log_suffix, *precision.tolist())
    if args.distributed:
        torch.distributed.broadcast(precision, src=0)
    return OrderedDict(loss=losses.mean(args, device), **dict(zip(METRICS, precision.tolist(), strict=True)))


def create_bench(model: nn.Module, kind: type[DetBenchTrain] | type[DetBenchPredict]) -> nn.Module:
    """effdet's bench around a model, in evaluation mode.

    Args:
        model: EfficientDet, as it is or in wrappers.
        kind: `DetBenchTrain` gives loss and detections for images and targets, `DetBenchPredict` detections for images.
    """
    plain = unwrap_model(model)
    bench: Any = kind(plain).to(next(plain.parameters()).device).eval()
    scores = len(bench.anchors.boxes) * bench.num_classes
    bench.max_detection_points = min(bench.max_detection_points, scores)  # effdet asks for 5,000 of any number
    return bench


def bench_target(
    annotations: Annotations, indices: Sequence[int], size_px: int, device: torch.device
) -> dict[str, Tensor]:
    """What effdet's bench wants to know of images that `eval_transform` made.

    Args:
        annotations: Of all images.
        indices: Which ones are in the batch, B.
        size_px: Side of the square image.
        device: Where the tensors go.

    Returns:
        'bbox': y0, x0, y1, x1 in pixels of the square, [B, N, 4]; 'cls': [B, N], -1 where there is none; 'img_scale':
        pixels of the image for one of the square, [B]; 'img_size': width and height of the image, [B, 2].
    """
    scales, objects = [], []
    for index in indices:
        scale, _ = fit_scale(annotations.sizes_hw[index], size_px)
        boxes, classes = annotations.objects(index)
        scales.append(1 / scale)
        rows = np.concatenate([boxes[:, [1, 0, 3, 2]] * scale, classes[:, None]], axis=1)
        objects.append(torch.from_numpy(rows.astype(np.float32)))
    padded = pad_objects(objects)
    sizes_wh = np.ascontiguousarray(annotations.sizes_hw[list(indices)][:, ::-1]).astype(np.float32)
    target = {'bbox': padded[..., :4], 'cls': padded[..., 4], 'img_scale': torch.tensor(scales)}
    target['img_size'] = torch.from_numpy(sizes_wh)
    return {name: values.to(device) for name, values in target.items()}


def average_precision(annotations: Annotations, indices: Sequence[int], detections: Tensor) -> tuple[float, float]:
    """COCO's mAP@0.5:0.95 and AP@0.5 in percent; nan if the images hold no object but crowds.

    Args:
        annotations: Of all images.
        indices: Images that were looked at, N; one that comes again (the share of another process is filled up) counts
            once. Objects of others, of images that cannot be read, are not missed.
        detections: x0, y0, x1, y1, score, class of M boxes an image, [N, M, 6]; class 0 is none.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    wanted, seen = annotations.to_coco(), {index + 1 for index in indices}
    wanted['images'] = [row for row in wanted['images'] if row['id'] in seen]
    wanted['annotations'] = [row for row in wanted['annotations'] if row['image_id'] in seen]
    if all(row['iscrowd'] for row in wanted['annotations']):
        return float('nan'), float('nan')
    first = {index: number for number, index in reversed(list(enumerate(indices)))}
    rows = [to_results(index + 1, detections[number].numpy()) for index, number in first.items()]
    results = np.concatenate(rows)
    if not len(results):
        return 0.0, 0.0
    truth = COCO(wanted)
    quiet = logger.debug
    evaluation = COCOeval_faster(truth, truth.loadRes(results), 'bbox', print_function=quiet)
    evaluation.run()
    mean, half = (100 * float(value) if value >= 0 else float('nan') for value in evaluation.stats[:2])
    return mean, half


def to_results(image_id: int, detections: np.ndarray) -> np.ndarray:
    """Detections [M, 6] as COCO's results: image id, x, y, width, height, score, class, [m, 7]."""
    kept = detections[detections[:, 5] > 0].astype(np.float64)
    corners, sizes = kept[:, :2], kept[:, 2:4] - kept[:, :2]
    return np.column_stack([np.full(len(kept), image_id), corners, sizes, kept[:, 4:]])
