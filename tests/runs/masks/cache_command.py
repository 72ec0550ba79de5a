"""The cache's command in this process, and images that show which mask is theirs."""

import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from timm_repaint.masks import __main__ as command


def write_images(root: Path, names: list[str], size_wh: tuple[int, int] = (60, 40)) -> Path:
    """Pictures whose left part is black and right part is red; the border is at ten times their number."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image_u8 = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
        image_u8[:, 10 * (number + 1) :, 0] = 255
        Image.fromarray(image_u8).save(root / name)
    return root


NAMES = ['train/cat/a.png', 'train/cat/b.png', 'train/dog/c.png', 'val/cat/d.png']


def run(images: Path, out: Path, *options: object) -> int:
    """The command in this process with options that suit these images; its exit code."""
    fh = () if '--mask' in options else ('--fh-scale', 10, '--fh-sigma', 0)
    return run_plainly(images, out, *fh, *options)


def run_plainly(images: Path, out: Path, *options: object) -> int:
    """The same with these options alone."""
    argv, handler = sys.argv, signal.getsignal(signal.SIGTERM)
    sys.argv = ['masks', *map(str, (images, out, '--workers', 1, *options))]
    try:
        return command.main()
    finally:
        sys.argv = argv
        signal.signal(signal.SIGTERM, handler)


def fails(capsys, *arguments: object) -> str:
    """What argparse says to a command line that it refuses."""
    with pytest.raises(SystemExit) as exit_info:
        run(*arguments)
    assert exit_info.value.code == 2
    return capsys.readouterr().err
