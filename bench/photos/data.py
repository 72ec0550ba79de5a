"""The data of a setting: read by the tests as train.py reads it, and looked at before anything trains."""

import os
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from timm.data import create_dataset

from bench.photos.arms import BATCH, SETTINGS
from bench.photos.table import MEAN, NO_TESTS, OTHERS
from timm_repaint.claim import claim
from timm_repaint.data.folders import check_classes, count_endings, tell_difference
from timm_repaint.data.named import NamedImages
from timm_repaint.detection.images import CocoImages
from timm_repaint.errors import UsageError, first_of
from timm_repaint.pictures import find_pictures, is_hidden, walk

VALIDATION = 'validation'


def photographs_of(folder: Path) -> dict[str, list[Path]]:
    """The photographs of each class of a folder of class folders, in the order of their names, without hidden ones."""
    found: dict[str, list[Path]] = {}
    for name in sorted(find_pictures(folder)):
        if not is_hidden(name):
            found.setdefault(Path(name).parts[0], []).append(folder / name)
    return dict(sorted(found.items()))


def read_split(folder: Path, numbers: Mapping[str, int] | None = None) -> NamedImages:
    """A folder of class folders as train.py reads it: hidden files left out, 16 bits scaled.

    Args:
        folder: It may lack some of the classes.
        numbers: By class, those of the training photographs; None: its own.

    Raises:
        UsageError: If there is a class without images, or one that the training photographs do not have.
    """
    dataset = create_dataset('', root=str(folder.parent), split=folder.name)
    check_classes(dataset, folder.name, sys.maxsize, count_endings(str(folder)))
    reader = dataset.reader
    if numbers is not None:
        if more := sorted(set(reader.class_to_idx) - set(numbers)):
            raise UsageError(f'{folder} has classes that the training photographs do not have: {first_of(more)}')
        names = {number: name for name, number in reader.class_to_idx.items()}
        reader.samples = [(path, numbers[names[number]]) for path, number in reader.samples]
        reader.class_to_idx = {name: numbers[name] for name in reader.class_to_idx}
    return NamedImages(dataset)


def tests_of(source: Path) -> list[Path]:
    """What a classifier is tested on: the folders beside `train/`."""
    folders = [folder for folder in sorted(source.iterdir()) if folder.is_dir() and folder.name[0] != '.']
    return [folder for folder in folders if folder.name != 'train']


def check_photographs(source: Path, per_class: int | None) -> None:
    """Refuse photographs that a classifier could not be trained and tested on.

    Args:
        source: With `train/`, `validation/` and the folders of other domains.
        per_class: How many of a class are trained on; None: all.

    Raises:
        UsageError: If there are too few, or a folder is missing, has other classes or the name of another figure.
    """
    numbers = read_split(source / 'train').reader.class_to_idx
    classes = photographs_of(source / 'train')
    if inner := sorted(set(numbers) - set(classes)):
        raise UsageError(f'{source}/train has classes in folders of classes: {first_of(inner)}; put them side by side')
    count = sum(len(images[:per_class]) for images in classes.values())
    if count < BATCH:
        raise UsageError(
            f'{source}/train has {count} photographs to train on, a batch is of {BATCH}; give more classes'
        )
    tests = tests_of(source)
    if VALIDATION not in [folder.name for folder in tests]:
        raise UsageError(f'{source} has no {VALIDATION}/; it needs train/, {VALIDATION}/ and a folder of each domain')
    for folder in tests:
        if folder.name in {MEAN, *NO_TESTS, *OTHERS}:
            raise UsageError(f'{folder}: a column of the results has this name; rename the folder')
        read_split(folder, numbers)


def check_boxes(source: Path) -> None:
    """Refuse a folder in COCO's layout that a detector could not be trained and tested on.

    Raises:
        UsageError: If annotations cannot be read or their images are not there, or the splits have other categories.
    """
    ours, theirs = (CocoImages(str(source), f'{split}2017').annotations.class_names for split in ('train', 'val'))
    if ours != theirs:
        raise UsageError(
            f'{source}: train2017 and val2017 list other categories, so that one number would mean two: '
            f'{tell_difference(ours, theirs)}'
        )


def check_setting(name: str, data: Path, output: Path) -> None:
    """Refuse data that a setting cannot use, or that is not an earlier call's; see the functions above.

    Raises:
        UsageError: If so: masks, corrupted copies and results in `output` would be taken for this data's.
    """
    source = data / SETTINGS[name].folder
    if not source.is_dir():
        raise UsageError(f'{source} does not exist; the setting {name} needs it')
    if SETTINGS[name].detects:
        check_boxes(source)
    else:
        check_photographs(source, SETTINGS[name].per_class)
    claim_for(source, output / 'data' / source.name)


def claim_for(source: Path, folder: Path) -> None:
    """Note in a folder what a file, or all files of a folder, hold, which later calls must have too.

    Links are followed, and hidden files left out, as in training.
    """
    digest = sha256()
    names = [os.curdir]
    if source.is_dir():
        names = [os.path.join(folder, name) for folder, files in walk(source) for name in files if not is_hidden(name)]
    for name in sorted(names, key=lambda name: Path(name).parts):
        digest.update(f'{name}\n'.encode(errors='surrogateescape') + (source / name).read_bytes())
    claim(folder, {'content': digest.hexdigest()})
