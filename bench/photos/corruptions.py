"""ImageNet-C's corruptions of validation photographs (Hendrycks and Dietterich, ICLR 2019), as files made once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torchvision.transforms.v2 import CenterCrop, Compose, Resize

from timm_repaint.optional import load_optional
from timm_repaint.progress import progress

SEVERITIES = (1, 3, 5)
SEVERITY = 3  # of photographs with boxes
PER_CLASS = 20  # the first photographs of each class
SIZE_PX = 146  # what a network at 128 px takes its centre from


def make_corrupted(photographs: Path, output: Path, per_class: int = PER_CLASS) -> None:
    """Write `output/KIND-SEVERITY/CLASS/NAME.png` for the 15 kinds and 3 severities; a finished folder is left alone.

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
    paths = [path for folder in sorted(photographs.iterdir()) for path in sorted(folder.iterdir())[:per_class]]
    kinds = [(kind, severity) for kind in package.get_corruption_names() for severity in SEVERITIES]
    for path in progress(paths, 'corruptions'):
        pixels = square_u8(path)
        for kind, severity in kinds:
            target = output / f'{kind}-{severity}' / path.parent.name / f'{path.stem}.png'
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
        UsageError: If imagecorruptions is not installed.
    """
    done = output / 'done'
    if done.is_file():
        return
    package = load_package()
    kinds = package.get_corruption_names()
    content = json.loads((coco / 'annotations' / f'instances_{split}.json').read_text())
    step = 1 + max(image['id'] for image in content['images'])
    images, boxes = [], []
    for image in progress(content['images'], 'corruptions'):
        with Image.open(coco / split / image['file_name']) as picture:
            pixels = np.asarray(picture.convert('RGB'))
        for number, kind in enumerate(kinds):
            name = f'{kind}/{Path(image["file_name"]).stem}.png'
            (output / split / kind).mkdir(parents=True, exist_ok=True)
            corrupted = package.corrupt(pixels, severity=SEVERITY, corruption_name=kind)
            Image.fromarray(corrupted).save(output / split / name)
            images.append({**image, 'id': number * step + image['id'], 'file_name': name})
    for number in range(len(kinds)):
        boxes += [{**box, 'image_id': number * step + box['image_id']} for box in content['annotations']]
    boxes = [{**box, 'id': place} for place, box in enumerate(boxes, start=1)]
    (output / 'annotations').mkdir(exist_ok=True)
    corrupted_content = {**content, 'images': images, 'annotations': boxes}
    (output / 'annotations' / f'instances_{split}.json').write_text(json.dumps(corrupted_content))
    done.touch()


def square_u8(path: Path) -> np.ndarray:
    """A photograph's centre, [146, 146, 3] uint8 RGB."""
    with Image.open(path) as image:
        return np.asarray(Compose([Resize(SIZE_PX), CenterCrop(SIZE_PX)])(image.convert('RGB')))


def load_package() -> Any:
    """imagecorruptions, which draws from numpy's global numbers: the same ones in every call.

    Raises:
        UsageError: If it is not installed.
    """
    package = load_optional('imagecorruptions', 'ImageNet-C', 'corruptions')
    np.random.seed(0)
    return package
