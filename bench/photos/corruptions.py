"""ImageNet-C's corruptions of validation photographs (Hendrycks and Dietterich, ICLR 2019), as files made once."""

from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.transforms.v2 import CenterCrop, Compose, Resize

from timm_repaint.optional import load_optional
from timm_repaint.progress import progress

SEVERITIES = (1, 3, 5)
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
    package = load_optional('imagecorruptions', 'ImageNet-C', 'corruptions')
    square = Compose([Resize(SIZE_PX), CenterCrop(SIZE_PX)])
    paths = [path for folder in sorted(photographs.iterdir()) for path in sorted(folder.iterdir())[:per_class]]
    kinds = [(kind, severity) for kind in package.get_corruption_names() for severity in SEVERITIES]
    np.random.seed(0)  # imagecorruptions draws from numpy's global numbers
    for path in progress(paths, 'corruptions'):
        with Image.open(path) as image:
            pixels = np.asarray(square(image.convert('RGB')))
        for kind, severity in kinds:
            target = output / f'{kind}-{severity}' / path.parent.name / f'{path.stem}.png'
            target.parent.mkdir(parents=True, exist_ok=True)
            corrupted = package.corrupt(pixels, severity=severity, corruption_name=kind)
            Image.fromarray(corrupted).save(target)
    done.touch()
