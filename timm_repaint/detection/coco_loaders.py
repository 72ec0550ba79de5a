"""Batches for a detector: square images, with label maps for `--repaint`, and one tensor of boxes and classes.

Training targets are [B, N, 5]: y0, x0, y1, x1 in pixels and the class 1..K, in effdet's order; images with fewer than N
objects are filled up with class -1. Validation targets are the images' numbers, [B]: what is in them, the evaluator
knows.
"""

import os
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_loader
from timm.data.dataset import _ERROR_RETRY
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from timm_repaint.data.folders import tell_difference
from timm_repaint.data.masked import append_labels, extend_normalization
from timm_repaint.data.named import Skipping
from timm_repaint.data.replay import label_picture
from timm_repaint.data.shapes import CLASSES
from timm_repaint.data.stored import known_classes, segment_ids
from timm_repaint.detection.annotations import Annotations, annotation_path, read_coco
from timm_repaint.detection.images import CocoImages
from timm_repaint.detection.shapes_boxes import SHAPES, DetectionShapes
from timm_repaint.detection.transforms import Augmentation, Moved, Transform, eval_transform, move, train_transform
from timm_repaint.engine.loaders import Loaders, finish, loader_kwargs
from timm_repaint.engine.masks import build_masks
from timm_repaint.engine.setup import Network
from timm_repaint.errors import UsageError
from timm_repaint.log import logger
from timm_repaint.masks.choice import MaskSource
from timm_repaint.masks.folder import FolderMasks, StoredMasks

NO_CLASS = -1
COCO_SPLITS = {'train': 'train2017', 'validation': 'val2017'}  # for timm's names, where these are there

Masks = MaskSource | StoredMasks
DetectionImages = CocoImages | DetectionShapes


class DetectionDataset(Dataset):
    """Images with boxes through a transform, and their label maps, where they are not made on the device.

    Args:
        images: What is read.
        transform: See `transforms.py`.
        masks: Stored masks, or a source for the finished image; None: no masks.
        training: Whether targets are boxes and classes, or the images' numbers.

    Attributes:
        annotations, image_root, filename: Those of the images.
    """

    def __init__(
        self, images: DetectionImages, transform: Transform, masks: Masks | None = None, training: bool = True
    ) -> None:
        self.images = images
        self.annotations, self.image_root, self.filename = images.annotations, images.image_root, images.filename
        self.transform = transform
        self.masks = None if masks is not None and masks.on_device else masks
        self.training = training
        self._skipping = Skipping(_ERROR_RETRY)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        """Image [3, S, S] or image and labels [4, S, S], uint8; objects [n, 5] float32, or the image's number."""
        moved, labels, position = self.read(index)
        image = moved.image if labels is None else append_labels(moved.image, labels)
        return image, objects_tensor(moved) if self.training else torch.tensor(position)

    def read(self, index: int) -> tuple[Moved, np.ndarray | None, int]:
        """The transformed image with its boxes, its label map, [S, S] integers, and its number.

        An unreadable image is named, and the next one comes in its place.

        Raises:
            UsageError: if too many images in a row cannot be read, or a mask not or does not fit its image.
        """

        def name(number: int) -> str:
            return self.filename(number, absolute=True)

        picture, index = self._skipping.read(self.images.read, index, len(self), name)
        stored = self._stored_labels(index, picture)
        moved = move(self.transform, picture, *self.annotations.objects(index), stored)
        if self.masks is None:
            return moved, None, index
        if moved.labels is None:
            labels = self.masks(moved.image.permute(1, 2, 0).contiguous().numpy())  # type: ignore[operator]
        else:
            labels = known_classes(moved.labels) if self.masks.kind == 'semantic' else segment_ids(moved.labels)
        return moved, labels, index

    def _stored_labels(self, index: int, picture: Image.Image) -> np.ndarray | None:
        """Stored label + 1 at the image's own size, [H, W]."""
        if not isinstance(self.masks, FolderMasks):
            return None
        path = self.filename(index, absolute=True)
        return np.asarray(label_picture(self.masks.load(path, (picture.height, picture.width))))


def objects_tensor(moved: Moved) -> Tensor:
    """Boxes and classes in effdet's order: y0, x0, y1, x1, class, [n, 5] float32."""
    return torch.cat([moved.boxes[:, [1, 0, 3, 2]], moved.classes[:, None]], dim=1).float()


def pad_objects(objects: Sequence[Tensor]) -> Tensor:
    """Objects of B images, [n, 5] each -> [B, N, 5], N at least 1; the rest has class -1."""
    return pad_sequence([*objects, torch.zeros(1, 5)], batch_first=True, padding_value=NO_CLASS)[:-1]


def collate(samples: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Samples -> images [B, 3 or 4, S, S] uint8, and padded objects [B, N, 5] or image numbers [B]."""
    images, targets = zip(*samples, strict=True)
    return torch.stack(images), torch.stack(targets) if targets[0].ndim == 0 else pad_objects(targets)


def data_root(args: Namespace) -> str:
    """The data folder.

    Raises:
        UsageError: if none is named.
    """
    root = args.data_dir or args.data
    if not root:
        raise UsageError('no data folder: give it as the first argument or with --data-dir (or use --dataset shapes)')
    return root


def coco_split(root: str, split: str) -> str:
    """The split of a folder that an option names."""
    own = COCO_SPLITS.get(split, split)
    there = [name for name in (own, split) if os.path.isfile(annotation_path(root, name))]
    return there[0] if there else own


def read_class_names(args: Namespace) -> tuple[str, ...]:
    """The classes of the training split."""
    if args.dataset == SHAPES:
        return CLASSES
    root = data_root(args)
    return read_coco(root, coco_split(root, args.train_split)).class_names


def read_images(args: Namespace, split: str, size_px: int, training: bool) -> DetectionImages:
    """The images of a split: COCO's layout, or the built-in shapes.

    Raises:
        UsageError: if they are not there.
    """
    if args.dataset == SHAPES:
        return DetectionShapes(split, args.train_num_samples if training else args.val_num_samples, size_px)
    root = data_root(args)
    return CocoImages(root, coco_split(root, split), args.train_fraction if training else 1.0)


def build_loaders(network: Network, fresh_workers: bool) -> Loaders:
    """Training and validation loaders; the arguments are those of `engine/loaders.py`."""
    args, data_config = network.args, network.data_config
    size_px, mean = data_config['input_size'][-1], data_config['mean']
    plain = eval_transform(size_px, mean, data_config['interpolation'])
    strength = Augmentation(args.scale_jitter, args.hflip, args.vflip, args.color_jitter or 0.0)
    augment = plain if args.no_aug else train_transform(size_px, mean, strength, data_config['interpolation'])
    images = read_images(args, args.train_split, size_px, training=True)
    check_boxes(images.annotations)
    tell_slivers(images.annotations, 'training')
    masks = build_masks(args, images) if args.repaint else None
    dataset_train = DetectionDataset(images, augment, masks)
    loader_train = create_loader(
        dataset_train,  # type: ignore[arg-type]
        batch_size=args.batch_size,
        is_training=True,
        use_multi_epochs_loader=args.use_multi_epochs_loader,
        persistent_workers=not fresh_workers,
        **_loader_kwargs(network),
    )
    dataset_train.transform = augment  # as below
    if dataset_train.masks is not None:
        extend_normalization(loader_train)
    loader_eval = build_eval_loader(network) if args.val_split else None
    if loader_eval is not None:
        check_same_classes(images.annotations.class_names, loader_eval.dataset.annotations.class_names)
        if args.train_split != args.val_split:
            check_apart(dataset_train, loader_eval.dataset)
    return finish(Loaders(loader_train, loader_eval, dataset_train, None, masks), args.batch_size)


def build_eval_loader(network: Network) -> Any:
    """The loader of the validation split."""
    args, data_config = network.args, network.data_config
    size_px, batch_size = data_config['input_size'][-1], args.validation_batch_size or args.batch_size
    plain = eval_transform(size_px, data_config['mean'], data_config['interpolation'])
    images = read_images(args, args.val_split, size_px, training=False)
    tell_slivers(images.annotations, 'validation')
    dataset = DetectionDataset(images, plain, training=False)
    loader = create_loader(dataset, batch_size=batch_size, **_loader_kwargs(network))  # type: ignore[arg-type]
    dataset.transform = plain  # create_loader puts one for class labels there
    return loader


def _loader_kwargs(network: Network) -> dict[str, Any]:
    """What both loaders have in common."""
    return {
        **loader_kwargs(network),
        'input_size': network.data_config['input_size'],
        'num_workers': network.args.workers,
        'collate_fn': collate,
        'worker_seeding': network.args.worker_seeding,
    }


def check_boxes(annotations: Annotations) -> None:
    """Refuse training images without a box from which something can be learned."""
    slivers, crowds, count = annotations.count_slivers(), int(annotations.crowds.sum()), len(annotations.classes)
    if slivers + crowds == count:
        raise UsageError(
            f'nothing to learn: of {count} boxes of the training images {crowds} are crowds, {slivers} have less than '
            'a pixel in their image; a bbox is left, top, width and height in pixels'
        )


def tell_slivers(annotations: Annotations, split: str) -> None:
    """Say how many boxes of the images are left out; `split`: 'training' or 'validation'."""
    if slivers := annotations.count_slivers():
        text = '%d of %d boxes of the %s images have less than a pixel in their image and are left out.'
        logger.warning(text, slivers, len(annotations.classes), split)


def check_apart(train: DetectionDataset, validation: DetectionDataset) -> None:
    """Refuse two splits that share images, as linked folders do."""
    if train.image_root is None or validation.image_root is None:
        return
    if os.path.realpath(train.image_root) != os.path.realpath(validation.image_root):
        return
    shared = sorted(set(train.annotations.file_names) & set(validation.annotations.file_names))
    if shared:
        raise UsageError(
            f'{len(shared)} images are trained on and validated on, first {shared[0]} of {train.image_root}; give each '
            'split images of its own (or both splits the same name if you mean it)'
        )


def check_same_classes(ours: Sequence[str], theirs: Sequence[str]) -> None:
    """Refuse a training and a validation split whose class numbers do not mean the same."""
    if ours == theirs:
        return
    raise UsageError(
        'training and validation split list other categories, so that one number would mean two classes: '
        f'{tell_difference(ours, theirs)}; both have to list the same ones'
    )
