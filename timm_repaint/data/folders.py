"""What is wrong with a folder of images, said before timm's readers stumble over it."""

import os
from typing import Any

from timm.data.readers.reader_image_folder import ReaderImageFolder

from timm_repaint.errors import UsageError


def check_image_folder(root: str | None) -> None:
    """Refuse a data folder that is not named, not there or empty."""
    if not root:
        raise UsageError('no data folder: give it as the first argument or with --data-dir (or use --dataset shapes)')
    if not os.path.exists(root):
        raise UsageError(f'data folder {root} does not exist')
    if os.path.isdir(root) and not os.listdir(root):
        raise UsageError(f'data folder {root} is empty; it needs train/<class>/<image> and validation/<class>/<image>')


def check_classes(dataset: Any, split: str, num_classes: int) -> None:
    """Refuse an image folder with more classes than the model, or with a class folder that holds no image.

    The class of an empty folder would be missing, and all classes behind it would get other numbers.
    """
    reader = getattr(dataset, 'reader', None)
    if not isinstance(reader, ReaderImageFolder):
        return
    root, class_to_idx = str(reader.root), reader.class_to_idx
    if max(class_to_idx.values(), default=0) >= num_classes:
        raise UsageError(
            f'{split} split: {root} has {len(class_to_idx)} classes, the model {num_classes}; set --num-classes'
        )
    parents = [os.path.relpath(os.path.dirname(path), root) for path, _ in reader.samples]
    filled = {parent.split(os.sep)[0] for parent in parents}
    folders = {entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith('.')}
    empty = sorted(folders - filled)
    if empty and filled != {os.curdir}:
        names = ', '.join(os.path.join(root, name) for name in empty[:5])
        raise UsageError(f'{split} split: no images in class folder {names}; remove the folder or fill it')
