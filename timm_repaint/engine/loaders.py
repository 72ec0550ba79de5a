"""Data sets and loaders: timm's factories, the built-in shapes, and label maps beside the images for `--repaint`."""

import os
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timm import utils
from timm.data import AugMixDataset, FastCollateMixup, ImageDataset, Mixup, NaFlexMixup, create_loader
from timm.data.naflex_loader import create_naflex_loader

from timm_repaint.baselines.cutout import CutOut
from timm_repaint.data import folders
from timm_repaint.data.fraction import keep_fraction
from timm_repaint.data.masked import add_masks, extend_normalization
from timm_repaint.data.named import NamedImages
from timm_repaint.data.shapes import CLASSES, ShapesDataset
from timm_repaint.data.stored import follow_schedule
from timm_repaint.engine.masks import build_masks, with_stored_masks
from timm_repaint.engine.preemption import keep_workers
from timm_repaint.engine.setup import Network, options_as
from timm_repaint.errors import UsageError
from timm_repaint.masks.choice import MaskSource
from timm_repaint.masks.folder import StoredMasks
from timm_repaint.options.idle import mixup_active
from timm_repaint.timm_data import create_timm_dataset


@dataclass
class Loaders:
    """What a run reads from.

    Attributes:
        train: Training batches.
        eval: Validation batches, or None without `--val-split`.
        dataset_train: The training images, for epoch numbers and the gallery.
        mixup_fn: MixUp or CutMix on the device; None where the loader's collate function does it, or nobody.
        masks: Where the label maps come from; None without `--repaint`.
    """

    train: Any
    eval: Any
    dataset_train: Any
    mixup_fn: Mixup | None
    masks: MaskSource | StoredMasks | None

    def set_epoch(self, epoch: int, distributed: bool) -> None:
        """Tell data set and samplers the epoch: shuffles differ between epochs and agree between processes."""
        if hasattr(self.dataset_train, 'set_epoch'):
            self.dataset_train.set_epoch(epoch)
        batch_sampler: Any = getattr(self.train, 'batch_sampler', None)
        if hasattr(batch_sampler, 'set_epoch'):
            batch_sampler.set_epoch(epoch)
        elif distributed and hasattr(getattr(self.train, 'sampler', None), 'set_epoch'):
            self.train.sampler.set_epoch(epoch)


def build_dataset(args: Namespace, split: str, data_config: dict[str, Any], is_training: bool) -> Any:
    """One split of `--dataset`: timm's, or the built-in shapes.

    Raises:
        UsageError: if its images or classes cannot be read or are not those that its folders mean; if a share of images
            is asked for that are not files.
    """
    num_samples = args.train_num_samples if is_training else args.val_num_samples
    if args.dataset == 'shapes':
        if is_training and args.train_fraction < 1:
            raise UsageError('--train-fraction is for images in class folders; of shapes give --train-num-samples')
        if args.num_classes < len(CLASSES):
            raise UsageError(f'the shapes have {len(CLASSES)} classes, the model {args.num_classes}; set --num-classes')
        return ShapesDataset(split, num_samples, image_size=max(data_config['input_size'][-2:]))
    root = args.data_dir or args.data
    split_dir = folders.split_root(root, split) if folders.reads_folders(args.dataset) else ''
    found = folders.count_endings(split_dir) if os.path.isdir(split_dir) else None
    if args.class_map:
        folders.check_class_map(args.class_map, args.dataset, split_dir)
    training_kwargs = {'seed': args.seed, 'repeats': args.epoch_repeats} if is_training else {}
    dataset = create_timm_dataset(
        args.dataset,
        root=root,
        split=split,
        is_training=is_training,
        input_img_mode=args.input_img_mode or ('RGB' if data_config['input_size'][0] == 3 else 'L'),
        num_samples=num_samples,
        **options_as(args, 'class_map batch_size input_key target_key download=dataset_download'),
        **options_as(args, 'trust_remote_code=dataset_trust_remote_code'),
        **training_kwargs,
    )
    folders.check_classes(dataset, split, args.num_classes, None if args.class_map else found)
    if args.class_map and found is not None:
        folders.tell_left_out(dataset, split, found)
    dataset = NamedImages(dataset) if isinstance(dataset, ImageDataset) else dataset
    if is_training and args.train_fraction < 1:
        keep_fraction(dataset, args.train_fraction)
    return dataset


def check_views(args: Namespace, dataset: Any) -> None:
    """Refuse `--tta` where validation batches do not hold all views of each image, one behind the other."""
    sizes = (args.validation_batch_size or args.batch_size, len(dataset) if hasattr(dataset, '__len__') else 0)
    if args.tta > 1 and any(size % args.tta for size in sizes):
        raise UsageError(
            f'--tta {args.tta} takes {args.tta} images in a row for views of one, and has to divide the '
            f'{sizes[1]} images of the split and the {sizes[0]} of a batch; leave it out'
        )


def build_loaders(network: Network, fresh_workers: bool) -> Loaders:
    """Training and validation loaders with timm's augmentation; with `--repaint` images come with their label maps.

    `fresh_workers` starts the training loader's workers anew in each epoch (see `random_state.py`).
    """
    args, data_config, model = network.args, network.data_config, network.model
    dataset_train = build_dataset(args, args.train_split, data_config, is_training=True)
    folders.tell_spare_classes(dataset_train, args.num_classes)
    dataset_eval = build_dataset(args, args.val_split, data_config, is_training=False) if args.val_split else None
    if dataset_eval is not None:
        folders.check_same_classes(dataset_train, dataset_eval)
        check_views(args, dataset_eval)
    masks = None
    if args.repaint:
        masks = build_masks(args, dataset_train)
        dataset_train = with_stored_masks(dataset_train, masks)
    common = loader_kwargs(network)
    train_kwargs = {**common, **_augmentation_kwargs(args, data_config), 'persistent_workers': not fresh_workers}
    eval_kwargs = {**common, **_eval_kwargs(args, data_config)}
    mixup_fn = None
    loader_eval = None
    if args.naflex_loader:
        loader_train = _naflex_train_loader(dataset_train, args, model, train_kwargs)
        if dataset_eval is not None:
            loader_eval = create_naflex_loader(
                dataset_eval,
                patch_size=_model_patch_size(model),
                max_seq_len=args.naflex_max_seq_len,
                patchify_channels_last=not args.naflex_patchify_channels_first,
                **eval_kwargs,
            )
    else:
        loader_train, mixup_fn = _train_loader(dataset_train, args, data_config, train_kwargs, masks)
        if dataset_eval is not None:
            loader_eval = create_loader(dataset_eval, input_size=data_config['input_size'], **eval_kwargs)
    return finish(Loaders(loader_train, loader_eval, dataset_train, mixup_fn, masks), args.batch_size)


def finish(loaders: Loaders, batch_size: int) -> Loaders:
    """The loaders, with workers that wait for an orderly stop.

    Raises:
        UsageError: if the training images do not fill a batch.
    """
    if len(loaders.train) == 0:
        raise UsageError(
            f'{len(loaders.dataset_train)} training images do not fill a batch of {batch_size}; use a smaller '
            '--batch-size'
        )
    for loader in (loaders.train, loaders.eval):
        keep_workers(loader)
    return loaders


def loader_kwargs(network: Network) -> dict[str, Any]:
    """Arguments of timm's `create_loader` that all loaders of a run have in common."""
    args, data_config = network.args, network.data_config
    return {
        'mean': data_config['mean'],
        'std': data_config['std'],
        'pin_memory': args.pin_mem,
        'img_dtype': network.precision.model_dtype or torch.float32,
        'device': network.device,
        'distributed': args.distributed,
        'use_prefetcher': not args.no_prefetcher,
    }


def _augmentation_kwargs(args: Namespace, data_config: dict[str, Any]) -> dict[str, Any]:
    """timm's augmentation options. With `--repaint`, random erasing waits for the repaint (see `after_repaint`)."""
    interpolation = args.train_interpolation
    if args.no_aug or not interpolation:
        interpolation = data_config['interpolation']
    names = 'no_aug train_crop_mode scale ratio hflip vflip color_jitter color_jitter_prob worker_seeding batch_size'
    return {
        **options_as(args, names),
        **options_as(args, 're_mode=remode re_count=recount re_split=resplit auto_augment=aa num_workers=workers'),
        **options_as(args, 'num_aug_repeats=aug_repeats num_aug_splits=aug_splits'),
        'is_training': True,
        're_prob': 0.0 if args.repaint else args.reprob,
        'grayscale_prob': args.grayscale_prob or 0.0,
        'gaussian_blur_prob': args.gaussian_blur_prob or 0.0,
        'interpolation': interpolation,
    }


def _eval_kwargs(args: Namespace, data_config: dict[str, Any]) -> dict[str, Any]:
    workers = args.workers
    if args.distributed and ('tfds' in args.dataset or 'wds' in args.dataset):
        workers = min(2, workers)  # fewer shares to pad when samples are spread over processes and workers
    return {
        'batch_size': args.validation_batch_size or args.batch_size,
        'is_training': False,
        'num_workers': workers,
        **{name: data_config[name] for name in ('interpolation', 'crop_pct')},
    }


def mixup_kwargs(args: Namespace) -> dict[str, Any]:
    """Arguments of timm's `Mixup`."""
    names = 'mixup_alpha=mixup cutmix_alpha=cutmix cutmix_minmax prob=mixup_prob switch_prob=mixup_switch_prob '
    return options_as(args, f'{names} mode=mixup_mode label_smoothing=smoothing num_classes')


def _train_loader(
    dataset: Any,
    args: Namespace,
    data_config: dict[str, Any],
    kwargs: dict[str, Any],
    masks: MaskSource | StoredMasks | None,
) -> tuple[Any, Mixup | None]:
    """timm's loader. MixUp sits in its collate function, or acts on the device (no prefetcher, or after a repaint)."""
    collate_fn: Callable | None = None
    mixup_fn = None
    if mixup_active(args):
        if args.no_prefetcher or args.repaint:
            mixup_fn = Mixup(**mixup_kwargs(args))
        elif args.aug_splits:
            raise UsageError('MixUp and CutMix do not work with --aug-splits; with both, give --no-prefetcher')
        else:
            collate_fn = FastCollateMixup(**mixup_kwargs(args))
    if args.aug_splits > 1:
        dataset = AugMixDataset(dataset, num_splits=args.aug_splits)
    loader = create_loader(
        dataset,
        input_size=data_config['input_size'],
        collate_fn=collate_fn,
        use_multi_epochs_loader=args.use_multi_epochs_loader,
        **_scheduled_kwargs(args, data_config),
        **kwargs,
    )
    if args.cutout and not args.repaint:
        loader.random_erasing = CutOut(args.cutout, loader.random_erasing)
    if isinstance(masks, StoredMasks):
        follow_schedule(loader.dataset, masks)
    elif masks is not None and not masks.on_device:
        add_masks(loader.dataset, masks, data_config['mean'], data_config['std'])
    if masks is not None and not masks.on_device:
        extend_normalization(loader)
    return loader, mixup_fn


def _scheduled_kwargs(args: Namespace, data_config: dict[str, Any]) -> dict[str, Any]:
    """Arguments of timm's scheduled batches: several training sizes, or a fixed number of batches an epoch."""
    if not args.train_img_sizes and not args.train_batches_per_epoch:
        return {}
    return {
        'input_size_choices': args.train_img_sizes or [data_config['input_size']],
        **options_as(args, 'batch_size_choices=train_batch_sizes batch_choice_weights=train_size_probs'),
        **options_as(args, 'batch_choice_seed=seed batch_choice_schedule=train_size_schedule'),
        **options_as(args, 'batch_schedule_epochs=epochs batch_schedule_spread=train_size_schedule_spread'),
        **options_as(args, 'batch_schedule_random_mix=train_size_random_mix num_batches=train_batches_per_epoch'),
    }


def _model_patch_size(model: torch.nn.Module) -> Any:
    """The patch size of a NaFlexVit; 16 for a model that does not say."""
    embeds: Any = getattr(utils.unwrap_model(model), 'embeds', None)
    return getattr(embeds, 'patch_size', None) or (16, 16)


def _naflex_train_loader(dataset: Any, args: Namespace, model: torch.nn.Module, kwargs: dict[str, Any]) -> Any:
    if args.aug_splits > 1:
        raise UsageError('--naflex-loader does not work with --aug-splits')
    mixup_fn = None
    if mixup_active(args):
        options = mixup_kwargs(args)
        del options['mode'], options['cutmix_minmax']  # NaFlexMixup has neither
        mixup_fn = NaFlexMixup(mixup_off_epoch=args.mixup_off_epoch, **options)
    patches: dict[str, Any] = {'patch_size': _model_patch_size(model)}
    if args.naflex_patch_sizes:
        probs = args.naflex_patch_size_probs
        if probs and len(probs) != len(args.naflex_patch_sizes):
            raise UsageError('--naflex-patch-size-probs needs as many values as --naflex-patch-sizes')
        patches = {'patch_size_choices': args.naflex_patch_sizes, 'patch_size_choice_probs': probs}
    del kwargs['num_aug_splits']
    return create_naflex_loader(
        dataset,
        mixup_fn=mixup_fn,
        **options_as(args, 'rank world_size train_seq_lens=naflex_train_seq_lens'),
        patchify_channels_last=not args.naflex_patchify_channels_first,
        **patches,
        **kwargs,
    )
