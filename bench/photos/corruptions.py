"""ImageNet-C's corruptions of validation photographs (Hendrycks and Dietterich, ICLR 2019), as files made once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torchvision.transforms.v2 import CenterCrop, Compose, Resize

from bench.photos.data import photographs_of
from timm_repaint.detection.annotations import annotation_path
from timm_repaint.detection.coco_file import read_json
from timm_repaint.errors import UsageError, as_mistake
from timm_repaint.optional import load_optional
from timm_repaint.pictures import UNREADABLE, read_picture
from timm_repaint.progress import progress

SEVERITIES = (1, 3, 5)
SEVERITY = 3  # of photographs with boxes
PER_CLASS = 20  # the first photographs of each class
SIZE_PX = 146  # what a network at 128 px takes its centre from
SMALLEST_PX = 32  # that imagecorruptions takes


def make_corrupted(photographs: Path, output: Path, per_class: int = PER_CLASS) -> None:
    """Write `output/KIND-SEVERITY/CLASS/FILE.png` for the 15 kinds and 3 severities; a finished folder is left alone.

    Args:
        photographs: A folder a class.
        output: Where the folders go.
        per_class: Photographs taken of each class, the first ones.

    Raises:
        UsageError: If imagecorruptions is not installed.
    """
    done = output / 'done'
    if done.is_file():
        return
    package = load_package()
    paths = [path for images in photographs_of(photographs).values() for path in images[:per_class]]
    kinds = [(kind, severity) for kind in package.get_corruption_names() for severity in SEVERITIES]
    for path in progress(paths, 'corruptions'):
        pixels = square_u8(path)
        for kind, severity in kinds:
            target = output / f'{kind}-{severity}' / path.relative_to(photographs).parent / f'{path.name}.png'
            target.parent.mkdir(parents=True, exist_ok=True)
            corrupted = package.corrupt(pixels, severity=severity, corruption_name=kind)
            Image.fromarray(corrupted).save(target)
    done.touch()


def make_corrupted_boxes(coco: Path, output: Path, split: str = 'val2017') -> None:
    """The same of photographs with boxes, at their own size: one folder in COCO's layout, each kind at severity 3.

    Args:
        coco: A folder in COCO's layout.
        output: Where the other one goes, with the same split.
        split: Of both.

    Raises:
        UsageError: If imagecorruptions is not installed, or a photograph is too small.
    """
    done = output / 'done'
    if done.is_file():
        return
    package = load_package()
    kinds = package.get_corruption_names()
    content = read_json(annotation_path(str(coco), split))
    numbers = {image['id']: number for number, image in enumerate(content['images'])}
    images, boxes = [], []
    for image, number in zip(progress(content['images'], 'corruptions'), numbers.values(), strict=True):
        pixels = np.asarray(read_photograph(coco / split / image['file_name']))
        if min(pixels.shape[:2]) < SMALLEST_PX:
            raise UsageError(f'{image["file_name"]} has a side below {SMALLEST_PX} px, too few for --corruptions')
        for place, kind in enumerate(kinds):
            name = f'{kind}/{number}.png'
            (output / split / kind).mkdir(parents=True, exist_ok=True)
            corrupted = package.corrupt(pixels, severity=SEVERITY, corruption_name=kind)
            Image.fromarray(corrupted).save(output / split / name)
            images.append({**image, 'id': place * len(numbers) + number, 'file_name': name})
    for place in range(len(kinds)):
        step = place * len(numbers)
        boxes += [{**box, 'image_id': step + numbers[box['image_id']]} for box in content['annotations']]
    boxes = [{**box, 'id': place} for place, box in enumerate(boxes, start=1)]
    (output / 'annotations').mkdir(exist_ok=True)
    corrupted_content = {**content, 'images': images, 'annotations': boxes}
    (output / 'annotations' / f'instances_{split}.json').write_text(json.dumps(corrupted_content))
    done.touch()


def square_u8(path: Path) -> np.ndarray:
    """A photograph's centre, [146, 146, 3] uint8 RGB.

    Raises:
        UsageError: If it cannot be read.
    """
    return np.asarray(Compose([Resize(SIZE_PX), CenterCrop(SIZE_PX)])(read_photograph(path)))


def read_photograph(path: Path) -> Image.Image:
    """A photograph in RGB.

    Raises:
        UsageError: If it cannot be read.
    """
    with as_mistake(f'cannot read {path}', *UNREADABLE):
        return read_picture(path)


def load_package() -> Any:
    """imagecorruptions, which draws from numpy's global numbers: the same ones in every call.

    Raises:
        UsageError: If it is not installed.
    """
    package = load_optional('imagecorruptions', 'ImageNet-C', 'corruptions')
    np.random.seed(0)
    return package
