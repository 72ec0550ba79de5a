"""T is an EfficientDet: effdet's model and loss as a timm training task."""

import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import timm
import torch
from effdet.anchors import AnchorLabeler, Anchors
from effdet.config.model_config import efficientdet_model_param_dict
from effdet.loss import DetectionLoss
from timm import utils
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, resolve_data_config
from timm.task import ClassificationTask
from torch import Tensor, nn

from timm_repaint.detection.coco_loaders import read_class_names
from timm_repaint.engine.setup import create_from_files
from timm_repaint.errors import UsageError
from timm_repaint.log import logger
from timm_repaint.weights import read_checkpoint

MATCH_IOU = 0.5  # an anchor is an object's from this overlap on (EfficientDet section 5.1, as effdet)


class DetectionTask(ClassificationTask):
    """EfficientDet with its focal and box losses; wrappers, compilation and weight average are those of timm's task.

    A checkpoint's `state_dict` is the plain EfficientDet, as `effdet.create_model(checkpoint_path=…)` reads it.

    Args:
        model: effdet's EfficientDet.
        device: Where the anchors are.
        dtype: Of the task's tensors.
        verbose: Whether to log.
    """

    def __init__(
        self, model: nn.Module, device: torch.device | None, dtype: torch.dtype | None, verbose: bool = True
    ) -> None:
        config: Any = model.config
        super().__init__(model, criterion=DetectionLoss(config), device=device, dtype=dtype, verbose=verbose)
        self.anchors = Anchors.from_config(config).to(self.device)
        self.labeler = AnchorLabeler(self.anchors, config.num_classes, MATCH_IOU)

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The loss of a batch.

        Args:
            input: [B, 3, S, S], normalised.
            target: y0, x0, y1, x1 in pixels and class 1..K, or -1 where there is no object, [B, N, 5] float32.

        Returns:
            'loss', its parts 'class_loss' and 'box_loss', and 'output', the finest level's class logits [B, A*K, h, w].
        """
        class_logits, box_codes = self.trainable_module(input)  # a level each: [B, A*K, h, w], [B, A*4, h, w]
        with torch.no_grad():
            labels = self.labeler.batch_label_anchors(target[..., :4], target[..., 4])
        loss, class_loss, box_loss = self.criterion(class_logits, box_codes, *labels)
        return {'loss': loss, 'output': class_logits[0], 'class_loss': class_loss, 'box_loss': box_loss}


def build_model(args: Namespace, create_model: Callable[..., Any]) -> nn.Module:
    """EfficientDet from effdet's factory, on the CPU, with as many classes as the data have.

    Raises:
        UsageError: if effdet does not know the model, or `--num-classes` is too few.
    """
    classes = len(read_class_names(args))
    num_classes = classes if args.num_classes is None else args.num_classes
    if num_classes < classes:
        raise UsageError(f'the data have {classes} classes, --num-classes is {num_classes}; leave it out')
    if args.model not in efficientdet_model_param_dict:
        known = ', '.join(sorted(efficientdet_model_param_dict))
        raise UsageError(f'effdet has no model {args.model!r}; choose from {known}')
    size = {} if args.img_size is None else {'image_size': (args.img_size, args.img_size)}
    backbone_path = vars(args).get('pretrained_backbone_path', '')
    model = create_from_files(
        create_model,
        args,
        num_classes=num_classes,
        pretrained=args.pretrained,
        pretrained_backbone=args.pretrained_backbone and not backbone_path,
        checkpoint_path=args.initial_checkpoint,
        checkpoint_ema=True,  # where it holds a weight average, as timm's factory does
        **size,
    )
    if backbone_path:
        load_backbone(model, backbone_path)
    if args.bn_momentum is not None:
        set_bn_momentum(model, args.bn_momentum)
    model.num_classes = num_classes  # timm's name for it
    num_params = sum(p.numel() for p in model.parameters())
    logger.info('Model %s created, %d parameters, %d classes.', args.model, num_params, num_classes)
    return model


def load_backbone(model: Any, path: str) -> None:
    """Put the weights of a classifier's file into the backbone, as timm's factory reads them.

    Raises:
        UsageError: if the file is not there, or is of another network.
    """
    if not os.path.isfile(path):
        raise UsageError(f'--pretrained-backbone-path {path}: there is no such file')
    name, out_indices = model.config.backbone_name, model.config.backbone_indices or (2, 3, 4)
    backbone_args = {**model.config.backbone_args}
    wanted = Namespace(
        model=name, initial_checkpoint='', pretrained_path=path, pretrained=True, model_kwargs=backbone_args
    )
    backbone = create_from_files(
        timm.create_model,
        wanted,
        pretrained=True,
        pretrained_cfg_overlay={'file': path},
        features_only=True,
        out_indices=out_indices,
    )
    known = {_fingerprint(weight) for weight in _tensors(read_checkpoint(path))}
    unknown = [
        key for key, weight in backbone.named_parameters() if weight.ndim > 1 and _fingerprint(weight) not in known
    ]
    if unknown:  # timm passes over what a file lacks
        raise UsageError(f'{path} has not the weights of {name}: {len(unknown)} are missing, first {unknown[0]}')
    model.backbone.load_state_dict(backbone.state_dict())


def _tensors(content: Any) -> Iterator[Tensor]:
    """All tensors of a checkpoint, however deep."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from _tensors(value)


def _fingerprint(weight: Tensor) -> tuple[tuple[int, ...], float]:
    return tuple(weight.shape), float(weight.detach().double().sum())


def set_bn_momentum(model: nn.Module, momentum: float) -> None:
    """Gives all batch norms a momentum of their running statistics; effdet's 0.01 needs thousands of updates."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = momentum


def resolve_data(args: Namespace, model: nn.Module) -> dict[str, Any]:
    """Input size, mean, std and interpolation from the options and the model's configuration (timm's function)."""
    config: Any = model.config
    own = {
        'input_size': (3, *config.image_size),
        'mean': tuple(config.get('mean') or IMAGENET_DEFAULT_MEAN),  # timm takes omegaconf's sequence for a number
        'std': tuple(config.get('std') or IMAGENET_DEFAULT_STD),
        'interpolation': 'bilinear',
    }
    return resolve_data_config(vars(args), pretrained_cfg=own, verbose=utils.is_primary(args))


def build_task(model: nn.Module, args: Namespace, device: torch.device, dtype: torch.dtype | None) -> DetectionTask:
    """The training task; the arguments are those of `engine/criterion.py`."""
    return DetectionTask(model, device, dtype, verbose=utils.is_primary(args))
