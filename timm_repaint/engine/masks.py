"""Where a run's masks come from: made in the loader's workers, read from files, or made on the device."""

import os
from argparse import Namespace
from typing import Any

from timm_repaint.data.stored import StoredMaskImages, StoredMaskStream, has_files
from timm_repaint.errors import UsageError
from timm_repaint.log import logger
from timm_repaint.masks.archive import ArchiveMasks, is_random_access, is_sharded
from timm_repaint.masks.choice import MaskOptions, MaskSource, create_mask_source
from timm_repaint.masks.felzenszwalb import DEFAULT_SIGMA
from timm_repaint.masks.folder import CachedMasks, FolderMasks, OutlineMasks, StoredMasks, mask_name
from timm_repaint.masks.manifest import sha256


def build_masks(args: Namespace, dataset: Any) -> MaskSource | StoredMasks:
    """The run's masks: those of `--mask-dir` for images that are files, else the source behind `--mask`.

    Raises:
        UsageError: if the stored masks are of another source, or of other images.
    """
    if args.mask == 'outlines':
        return OutlineMasks()
    if not args.mask_dir:
        if args.mask == 'folder':
            raise UsageError('--mask folder needs --mask-dir, the folder of PNG label maps')
        logger.info('Masks of %s are made on the fly.', args.mask)
        return create_mask_source(MaskOptions.of(args))
    if not has_files(dataset) and args.mask == 'folder':
        raise UsageError('--mask folder needs images that are files in folders')
    if is_random_access(dataset) or is_sharded(dataset):
        packed = ArchiveMasks(args.mask_dir)
        check_cache_options(args, packed)
        root = args.data_dir or args.data
        images = f'{args.dataset} --data-dir {root}' if args.dataset else root
        packed.check_first(
            dataset,
            f'make the masks with timm-repaint masks {images} {args.mask_dir} --mask {args.mask} '
            f"--split '{args.train_split}'",
        )
        return packed
    if not has_files(dataset):
        logger.info('The images are no files of their own: masks are made on the fly, --mask-dir is not used.')
        return create_mask_source(MaskOptions.of(args))
    image_root = find_image_root(args, dataset)
    if args.mask == 'folder':
        return FolderMasks(args.mask_dir, image_root, args.mask_classes)
    masks = CachedMasks(args.mask_dir, image_root)
    check_cache_options(args, masks)
    return masks


def find_image_root(args: Namespace, dataset: Any) -> str:
    """The folder that `--mask-dir` mirrors: the data folder, or the folder of its training split.

    Raises:
        UsageError: if the first training image has its mask in neither place.
    """
    first = dataset.filename(0, absolute=True)
    roots = [str(args.data_dir or args.data), dataset.image_root]
    wanted = [os.path.join(args.mask_dir, mask_name(os.path.relpath(first, root))) for root in roots]
    for root, path in zip(roots, wanted, strict=True):
        if os.path.isfile(path):
            return root
    raise UsageError(
        f'no mask for {first}: neither {" nor ".join(dict.fromkeys(wanted))} is there; make the masks with '
        f'timm-repaint masks {roots[0]} {args.mask_dir} --mask {args.mask}'
    )


def check_cache_options(args: Namespace, masks: CachedMasks | ArchiveMasks) -> None:
    """Refuse a cache of another source, or of other parameters than those that the command line names."""
    manifest = masks.manifest
    if manifest.source != args.mask:
        raise UsageError(f'{args.mask_dir} holds masks of {manifest.source}, --mask is {args.mask}; name that one')
    for option, name, value in asked_parameters(args):
        made = manifest.parameters.get(name)
        if value is not None and made != value:
            raise UsageError(f'{args.mask_dir} was made with {option} {made}, not {value}; leave the option out')


def asked_parameters(args: Namespace) -> list[tuple[str, str, Any]]:
    """Options of the mask source, their names in a cache's manifest, and their values; None: left at the default."""
    if args.mask == 'fh':
        return [
            ('--fh-scale', 'scale', args.fh_scale),
            ('--fh-min-size', 'min_size', args.fh_min_size),
            ('--fh-sigma', 'sigma', None if args.fh_sigma == DEFAULT_SIGMA else args.fh_sigma),
            ('--fh-backend', 'backend', None if args.fh_backend == 'auto' else args.fh_backend),
        ]
    checkpoint = args.mask_checkpoint
    digest = sha256(checkpoint) if os.path.isfile(checkpoint) else None  # the cache alone is enough
    return [
        ('--mask-checkpoint', 'checkpoint', os.path.basename(checkpoint) or None),
        ('a --mask-checkpoint of SHA-256', 'checkpoint_sha256', digest),
    ]


def with_stored_masks(dataset: Any, masks: MaskSource | StoredMasks) -> Any:
    """The data set that reads images and stored masks together; the data set itself for other masks."""
    if isinstance(masks, ArchiveMasks) and is_sharded(dataset):
        return StoredMaskStream(dataset, masks)
    return StoredMaskImages(dataset, masks) if isinstance(masks, StoredMasks) else dataset
