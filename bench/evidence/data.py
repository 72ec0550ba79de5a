"""Which images the runs see: small subsets of an image folder, and images set aside for choices (`--dev`)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from timm.data.readers.img_extensions import get_img_extensions

import timm_repaint
from timm_repaint.data.shapes import CLASSES
from timm_repaint.errors import UsageError

RECIPES = Path(timm_repaint.__file__).parent / 'recipes' / 'mini'
RECIPE_SIZES_PX = {32: 40, 64: 80}  # recipe's size -> longest shorter side of the images that it is for
LARGEST_RECIPE_PX = 128
SHAPES = 'shapes'  # the word for the built-in set
VALIDATION_NAMES = ('validation', 'val')
DEV_VALIDATION = 100  # images a class
EPOCHS_OF_1000 = 100  # epochs with 1,000 training images


@dataclass(frozen=True)
class Subset:
    """The images of some runs.

    Attributes:
        data: name of the data set; '-dev' at its end: images set aside for choices.
        size: number of training images.
        num_classes: number of classes.
        recipe: options that all arms share.
        links: the tree: relative name -> image, or folder of images; empty for shapes.
        drawn: whether the images are the built-in set's, drawn while training, and no files.
    """

    data: str
    size: int
    num_classes: int
    recipe: Path
    links: Mapping[str, Path] = field(default_factory=dict, compare=False, repr=False)
    drawn: bool = False

    @property
    def name(self) -> str:
        return f'{self.data}-{self.size}'

    def tree(self, output: Path) -> Path:
        return output / 'data' / self.name

    def masks(self, output: Path) -> Path:
        return output / 'masks' / self.name

    @property
    def epochs(self) -> int:
        """Epochs of all arms: updates grow with the square root of the number of images."""
        return round(EPOCHS_OF_1000 * math.sqrt(1000 / self.size))

    def options(self, output: Path) -> list[str]:
        """The options of train.py that name these images, and the number of epochs that goes with them."""
        classes = ['--num-classes', str(self.num_classes), '--epochs', str(self.epochs)]
        if self.drawn:
            return ['--dataset', SHAPES, '--train-num-samples', str(self.size), '--cue-conflict', *classes]
        return [str(self.tree(output)), *classes]


def plan_subset(data: str, size: int, dev: bool) -> Subset:
    """The subset of `size` training images of a data set; nothing is written.

    A reported run trains on the first images of each class in the order of their names, and validates on the validation
    split. For choices (`dev`) the last 100 training images of each class are for validation, and those right before
    them for training: no reported run of this size trains on them, and the validation split is never looked at.

    Args:
        data: folder with train/ and validation/ (or val/), or 'shapes'. Of shapes, `dev` takes images of another seed,
            and validates by shape on cue conflicts.
        size: number of training images over all classes.

    Raises:
        UsageError: if the folder is no such data set, or has too few images.
    """
    if data == SHAPES:
        per_class(data, size, len(CLASSES))
        name = f'{SHAPES}-dev' if dev else SHAPES
        return Subset(name, size, len(CLASSES), RECIPES / 'shapes.yaml', drawn=not dev)
    root = Path(data).resolve()
    classes = find_classes(root / 'train')
    validation = find_validation(root, set(classes))
    count = per_class(data, size, len(classes))
    links: dict[str, Path] = {} if dev else {'validation': validation}
    for name, images in classes.items():
        train, dev_validation = choose_images(images, count, dev, f'{root}/train/{name}')
        links |= {_link(root, 'train', image): image for image in train}
        links |= {_link(root, 'validation', image): image for image in dev_validation}
    recipe = find_recipe(next(iter(classes.values()))[0])
    return Subset(f'{root.name}-dev' if dev else root.name, size, len(classes), recipe, links)


def _link(root: Path, split: str, image: Path) -> str:
    return str(Path(split) / image.relative_to(root / 'train'))


def per_class(data: str, size: int, num_classes: int) -> int:
    """Images a class.

    Raises:
        UsageError: if the classes cannot have equally many.
    """
    if size < num_classes or size % num_classes:
        fitting = max(1, round(size / num_classes)) * num_classes
        raise UsageError(
            f'--sizes {size} cannot be shared evenly by the {num_classes} classes of {data}; try {fitting}'
        )
    return size // num_classes


def choose_images(images: Sequence[Path], count: int, dev: bool, place: str) -> tuple[Sequence[Path], Sequence[Path]]:
    """Training images of a class and, for choices, its validation images; see plan_subset.

    Raises:
        UsageError: if the class has too few images.
    """
    needed = 2 * count + DEV_VALIDATION if dev else count
    if len(images) < needed:
        why = f' ({count} of reported runs, {count} to train and {DEV_VALIDATION} to validate on)' if dev else ''
        raise UsageError(f'{place} has {len(images)} images, but {needed} are needed{why}; give smaller --sizes')
    if not dev:
        return images[:count], []
    return images[-DEV_VALIDATION - count : -DEV_VALIDATION], images[-DEV_VALIDATION:]


def find_classes(train: Path) -> dict[str, list[Path]]:
    """Images of each class folder, in the order of their names.

    Raises:
        UsageError: if there is no such folder, or no class in it.
    """
    if not train.is_dir():
        raise UsageError(
            f"{train} does not exist; DATA has train/<class>/<image> and validation/, or is the word '{SHAPES}'"
        )
    folders = sorted(entry for entry in train.iterdir() if entry.is_dir() and not entry.name.startswith('.'))
    if not folders:
        raise UsageError(f'{train} has no class folders')
    return {folder.name: find_images(folder) for folder in folders}


def find_images(folder: Path) -> list[Path]:
    """All images below a folder, sorted by name.

    Raises:
        UsageError: if there are none.
    """
    endings = get_img_extensions(as_set=True)
    images = sorted(path for path in folder.rglob('*') if path.suffix.lower() in endings)
    if not images:
        raise UsageError(f'{folder} has no images')
    return images


def find_validation(root: Path, classes: set[str]) -> Path:
    """The folder of the validation split.

    Raises:
        UsageError: if there is none, or it has other classes than the training split.
    """
    for name in VALIDATION_NAMES:
        if (root / name).is_dir():
            found = {entry.name for entry in (root / name).iterdir() if entry.is_dir()}
            if found != classes:
                odd = ', '.join(sorted(found ^ classes)[:5])
                raise UsageError(f'{root}/train and {root}/{name} have other classes: {odd}')
            return root / name
    raise UsageError(f'{root} has neither {" nor ".join(VALIDATION_NAMES)}; the runs need a validation split')


def find_recipe(image: Path) -> Path:
    """The recipe for images of this one's size."""
    with Image.open(image) as picture:
        side_px = min(picture.size)
    fitting = [recipe_px for recipe_px, limit_px in RECIPE_SIZES_PX.items() if side_px <= limit_px]
    return RECIPES / f'{min(fitting, default=LARGEST_RECIPE_PX)}px.yaml'
