"""The images of a subset on disk: a tree of links, or drawn shapes."""

import os
import shutil
from pathlib import Path

from bench.evidence.data import Subset
from timm_repaint.data.shapes import CLASSES, ShapesDataset
from timm_repaint.errors import UsageError
from timm_repaint.options import build_parser
from timm_repaint.options.option_files import load_config

DEV_SHAPES_SEED = 1  # the built-in set's own images have seed 0
DEV_SHAPES_VALIDATION = 1000  # images


def make_tree(subset: Subset, output: Path) -> None:
    """Write the subset's tree; a second call leaves it.

    Raises:
        UsageError: if the tree is there and of other images.
    """
    if subset.drawn:
        return
    tree = subset.tree(output)
    if tree.is_dir():
        if subset.links and {name: Path(os.readlink(tree / name)) for name in _links_in(tree)} != subset.links:
            raise UsageError(f'{tree} links to other images; give another --output')
        return
    part = tree.with_name(f'{tree.name}.part')
    shutil.rmtree(part, ignore_errors=True)
    if subset.links:
        for name, target in subset.links.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).symlink_to(target)
    else:
        write_shapes(subset, part)
    part.rename(tree)


def _links_in(tree: Path) -> list[str]:
    return [str(path.relative_to(tree)) for path in tree.rglob('*') if path.is_symlink()]


def write_shapes(subset: Subset, folder: Path) -> None:
    """The built-in set's images for choices as files: training images, and cue conflicts in the validation split."""
    image_size = load_config(build_parser(), str(subset.recipe))['img_size']
    sources = {'train': ('train', subset.size), 'validation': ('cue-conflict', DEV_SHAPES_VALIDATION)}
    for split, (source, count) in sources.items():
        dataset = ShapesDataset(source, count, image_size, DEV_SHAPES_SEED)
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
        for index in range(count):
            image, label = dataset[index]
            image.save(folder / split / CLASSES[label] / f'{index:05}.png')
