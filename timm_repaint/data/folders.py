"""What is wrong with folders of images, said before timm's readers stumble over it or read something else in silence.

timm reads the whole data folder where a split is not there, numbers the classes of each split by themselves, and takes
every folder with images in it for a class, by its last name. A file of class names (`--class-map`) numbers both splits
alike, and says which folders are classes; with one, only the split folders are looked at.
"""

import os
import pickle
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from timm.data.dataset_factory import _EVAL_SYNONYM, _TORCH_BASIC_DS, _TRAIN_SYNONYM, _search_split
from timm.data.readers.class_map import load_class_map
from timm.data.readers.img_extensions import get_img_extensions
from timm.data.readers.reader_image_folder import ReaderImageFolder
from timm.utils import natural_key

from timm_repaint.errors import UsageError, first_of
from timm_repaint.log import logger
from timm_repaint.pictures import HALF, ending_of, is_hidden, tell_counts, unread_endings, walk

SPLITS = ('train', 'training', 'val', 'valid', 'validation', 'eval', 'evaluation', 'test')
READERS = ('torch', 'hfds', 'hfids', 'tfds', 'wds')
TAR = '.tar'
CLASS_MAP = 'a file of class names, one a line, says which folders are classes and numbers them: --class-map FILE'
Endings = dict[str, Counter[str]]


def check_image_folder(root: str | None) -> None:
    """Refuse a data folder that is not named, not there or empty."""
    if not root:
        raise UsageError('no data folder: give it as the first argument or with --data-dir (or use --dataset shapes)')
    if not os.path.exists(root):
        raise UsageError(f'data folder {root} does not exist')
    if os.path.isdir(root) and not os.listdir(root):
        raise UsageError(f'data folder {root} is empty; it needs train/<class>/<image> and validation/<class>/<image>')


def reads_folders(name: str) -> bool:
    """Whether a `--dataset` is images in class folders, or an archive of them."""
    kind, slash, rest = name.lower().partition('/')
    return not slash or kind not in READERS or (kind == 'torch' and rest in ('image_folder', 'folder'))


def split_root(root: str, split: str) -> str:
    """The folder that timm reads for a split of a data folder; of an archive itself."""
    return str(_search_split(root, split)) if os.path.isdir(root) else root


def check_splits(name: str, root: str | None, train_split: str, val_split: str) -> None:
    """Refuse splits whose images timm would not read, or would read in training and in validation.

    Args:
        name: `--dataset`.
        root: The data folder, or an archive.
        train_split: `--train-split`.
        val_split: `--val-split`; '': no validation.
    """
    if name.lower().removeprefix('torch/') in _TORCH_BASIC_DS and '/' in name:
        _check_parts(train_split, val_split)
    if not root or not reads_folders(name):
        return
    if not os.path.isdir(root):
        if val_split and val_split != train_split:
            raise UsageError(
                f"{root} has no splits: its images would be trained on and validated on; give --val-split '', or a "
                f'folder and in it two archives, --train-split train{TAR} --val-split validation{TAR}'
            )
        return
    if train_split == 'train' and not val_split and not set(SPLITS) & set(os.listdir(root)):
        return  # timm's default: all of a folder that has no splits
    train = split_folder(root, '--train-split', train_split)
    if not val_split:
        return
    validation = split_folder(root, '--val-split', val_split)
    if train_split == val_split:
        logger.warning('%s is trained on and validated on, as --train-split and --val-split say.', train)
        return
    inner, outer = (os.path.join(os.path.realpath(path), '') for path in (validation, train))
    if inner.startswith(outer) or outer.startswith(inner):
        raise UsageError(
            f'--train-split {train_split} and --val-split {val_split} share images: {train} is {outer}, {validation} '
            f"is {inner}; give two folders, or --val-split '' for none (the same name twice if you mean it)"
        )


def _check_parts(train_split: str, val_split: str) -> None:
    """The same for torchvision's small sets: timm takes every name but train and training for their test images."""
    if train_split not in _TRAIN_SYNONYM:
        raise UsageError(
            f'--train-split {train_split} would be the test images of this data set; it has train and test'
        )
    if val_split and val_split != train_split and val_split not in {*_EVAL_SYNONYM, 'test'}:
        raise UsageError(f'--val-split {val_split}: this data set has train and test')


def split_folder(root: str, option: str, split: str) -> str:
    """The folder that timm reads for a split.

    Raises:
        UsageError: if there is none, or only a share of it is asked for, of which timm would read all.
    """
    if '[' in split:
        raise UsageError(f'{option} {split}: of folders a split is read as a whole; use --train-fraction')
    found = split_root(root, split)
    if found != root:
        return found
    there = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith('.'))
    raise UsageError(
        f'{option} {split}: there is no folder {os.path.join(root, split)}, and all of {root} would be read; images '
        'belong into <split>/<class>/, '
        f'a split is the name of a folder in it ({first_of(there) or "it has none"}), . is the folder itself'
        + (", and --val-split '' is no validation" if option == '--val-split' else '')
    )


def check_class_map(path: str, name: str, root: str) -> None:
    """Refuse a `--class-map` that is not there, holds anything else than numbers by class name, or is not read.

    Args:
        path: `--class-map`.
        name: `--dataset`.
        root: The folder of the split, where timm looks for the file too.
    """
    if name.lower().startswith('torch/'):
        raise UsageError(f'--class-map does nothing for --dataset {name}; leave it out')
    try:
        classes = load_class_map(path, root)
    except AssertionError as error:  # timm's way to say that it is missing, or of another kind
        raise UsageError(f'--class-map {path}: {error}; give a .txt with a class name a line, or a .pkl') from error
    except OSError as error:
        raise UsageError(f'--class-map {path}: {error.strerror}') from error
    except (ValueError, pickle.UnpicklingError, EOFError, LookupError, TypeError, AttributeError, ImportError) as error:
        raise UsageError(f'--class-map {path} is no map of class names to numbers: {error}') from error
    numbers = [number for number in classes.values() if type(number) is int and number >= 0]
    if not classes or len(numbers) < len(classes):
        raise UsageError(f'--class-map {path} is no map of class names to numbers from 0 on')


def count_endings(root: str) -> Endings:
    """How many files of which endings are in each folder below a folder, by its name relative to it; '' is itself.

    Raises:
        UsageError: if a link leads back to a folder above it: timm would follow it without end.
    """
    return {folder: Counter(ending_of(name) for name in names) for folder, names in walk(root)}


def check_classes(dataset: Any, split: str, num_classes: int, found: Endings | None) -> None:
    """Make the class numbers of a split those that its folders mean, or refuse it.

    Images in hidden folders are left out.

    Args:
        dataset: timm's or torchvision's; other than image folders are left as they are.
        split: Its name, for messages.
        num_classes: Of the model.
        found: Of `count_endings`; None with a `--class-map`, which may leave folders out on purpose.

    Raises:
        UsageError: if the folder has more classes than the model, a class folder without images, images outside of
            class folders, classes within classes, or two folders of one name.
    """
    reader = getattr(dataset, 'reader', None)
    if isinstance(reader, ReaderImageFolder) and found is not None:
        _leave_out_hidden(reader, split)
        _check_tree(ClassTree(str(reader.root), [path for path, _ in reader.samples], found), split)
    names = class_numbers(dataset)
    if names is None:
        return
    hidden = [name for name in names if str(name).startswith('.')]
    if hidden:
        raise UsageError(f'{split} split: the hidden folder {hidden[0]} would be a class; remove it')
    if max(names.values(), default=0) >= num_classes:
        where, count = getattr(reader or dataset, 'root', split), max(len(names), max(names.values()) + 1)
        raise UsageError(f'{split} split: {where} has {count} classes, the model {num_classes}; set --num-classes')


def tell_left_out(dataset: Any, split: str, found: Endings) -> None:
    """Name the folders of images that a `--class-map` does not: on purpose, for a typo, or for a byte order mark."""
    names, endings = class_numbers(dataset) or {}, get_img_extensions(as_set=True)
    places = {os.path.basename(folder) for folder, counts in found.items() if not counts.keys().isdisjoint(endings)}
    left_out, empty = sorted(places - set(names)), [name for name in names if name not in places]
    if names and left_out:
        more = f'; of its classes these have no images: {first_of(empty)}' if empty else ''
        logger.warning('%s split: --class-map leaves out images of %s%s', split, first_of(left_out), more)


def tell_spare_classes(dataset: Any, num_classes: int) -> None:
    """Warn where a model has more classes than there are class folders, as without `--num-classes`."""
    names = class_numbers(dataset)
    if names and (count := max(names.values()) + 1) < num_classes:
        logger.warning('The model has %d classes, the images %d: --num-classes %d fits.', num_classes, count, count)


def check_same_classes(train: Any, validation: Any) -> None:
    """Refuse splits whose class numbers do not mean the same."""
    ours, theirs = class_numbers(train), class_numbers(validation)
    if ours is None or theirs is None or ours == theirs:
        return
    raise UsageError(
        f'training and validation have other class folders, so that one number would mean two classes: '
        f'{tell_difference(list(ours), list(theirs))}; rename or add folders, or {CLASS_MAP}'
    )


def tell_difference(ours: Sequence[str], theirs: Sequence[str]) -> str:
    """Which classes the training split or the validation split lacks."""
    lacks, more = ([name for name in a if name not in set(b)] for a, b in ((ours, theirs), (theirs, ours)))
    told = [
        f'{text} {first_of(names)}'
        for text, names in (('the validation split lacks', lacks), ('only the validation split has', more))
        if names
    ]
    return '; '.join(told) or 'their order differs'


def class_numbers(dataset: Any) -> Mapping[str, int] | None:
    """Numbers by class name, of images in folders or archives of them; None where there are no such names."""
    places = (getattr(dataset, 'reader', None), dataset)
    names = [getattr(place, name, None) for place in places for name in ('class_to_idx', 'class_name_to_idx')]
    return next((one for one in names if isinstance(one, Mapping)), None)


def _leave_out_hidden(reader: ReaderImageFolder, split: str) -> None:
    """Take out images in hidden folders, and the files that macOS puts beside its images."""
    root = str(reader.root)
    folders = {os.path.dirname(path) for path, _ in reader.samples}
    hidden = {folder for folder in folders if is_hidden(os.path.relpath(folder, root))}
    halves = {path for path, _ in reader.samples if os.path.basename(path).startswith(HALF)}
    if hidden:
        logger.warning('%s split: hidden folders are left out: %s', split, first_of(sorted(hidden)))
    if halves:
        logger.warning('%s split: files of macOS, no images, are left out: %s', split, first_of(sorted(halves)))
    if not hidden and not halves:
        return
    paths = [path for path, _ in reader.samples if os.path.dirname(path) not in hidden and path not in halves]
    labels = {path: os.path.basename(os.path.dirname(os.path.relpath(path, root))) for path in paths}
    numbers = {name: number for number, name in enumerate(sorted(set(labels.values()), key=natural_key))}
    reader.class_to_idx, reader.samples = numbers, [(path, numbers[labels[path]]) for path in paths]
    if not paths:
        raise UsageError(f'{split} split: {root} has images in hidden folders alone')


class ClassTree:
    """What is in a folder of class folders.

    Args:
        root: The folder.
        images: Paths of the images that are read.
        found: See `count_endings`.

    Attributes:
        filled: Names, in `found`, of the folders that images are read from.
        endings: Those of files that are read.
        loose: The first image that is in no folder of a class, if any.
    """

    def __init__(self, root: str, images: list[str], found: Endings) -> None:
        parents = {os.path.dirname(path): path for path in reversed(images)}
        names = {'' if (name := os.path.relpath(path, root)) == os.curdir else name: path for path in parents}
        self.root, self.found, self.filled = root, found, set(names)
        self.endings = get_img_extensions(as_set=True) | set(map(ending_of, images))  # more by --input-key
        self.loose: str | None = parents[names['']] if '' in names else None

    def path(self, name: str) -> str:
        return os.path.join(self.root, name) if name else self.root

    def class_of(self, name: str) -> str | None:
        """The class folder that a folder lies in, if any."""
        above = os.path.dirname(name)
        return None if not above else above if above in self.filled else self.class_of(above)


def _check_tree(tree: ClassTree, split: str) -> None:
    if tree.loose is not None:
        raise UsageError(
            f'{split} split: {tree.loose} is in no class folder, so that it has no label; images belong into '
            f'{tree.root}/<class>/'
        )
    named = defaultdict(list)
    for name in sorted(tree.filled):
        named[os.path.basename(name)].append(name)
        if above := tree.class_of(name):
            raise UsageError(
                f'{split} split: {tree.path(name)} lies within the class folder {tree.path(above)} and would be a '
                f'class of its own; move its images up or out, or {CLASS_MAP}'
            )
    for places in named.values():
        if len(places) > 1:
            raise UsageError(
                f'{split} split: {tree.path(places[0])} and {tree.path(places[1])} would be one class of one name; '
                f'rename one of them, or {CLASS_MAP}'
            )
    _check_empty(tree, split)
    others = sum(tree.found.values(), Counter())
    pictures = {ending: count for ending, count in others.items() if ending in unread_endings(tree.endings)}
    if pictures:
        advice = _reading(tree, pictures)
        logger.warning(
            '%s split: %s has images that are not read: %s; %s', split, tree.root, tell_counts(pictures), advice
        )


def _check_empty(tree: ClassTree, split: str) -> None:
    """A class without images would be missing, and all classes behind it would get other numbers."""
    above = {''}
    for name in tree.filled:
        while name not in above:
            above.add(name)
            name = os.path.dirname(name)
    empty = [name for name in tree.found if name not in above and not tree.class_of(name)]
    if not empty:
        return
    holds = sum((tree.found[name] for name in empty), Counter())
    raise UsageError(
        f'{split} split: no images in class folder {first_of([tree.path(name) for name in empty])}'
        f'{f" ({tell_counts(holds)})" if holds else ""}; remove the folder or fill it; {_reading(tree, holds)}'
    )


def _reading(tree: ClassTree, endings: Iterable[str]) -> str:
    """Which endings are read, and how to read others."""
    more = sorted(set(endings) & unread_endings(tree.endings))
    advice = f"; with --input-key '{';'.join(sorted(tree.endings) + more)}' these too" if more else ''
    return f'files are read that end with {" ".join(sorted(tree.endings))}{advice}'
