"""A user's own file passes `mypy --strict` against the installed package; the names of the package work as they did."""

import pickle
import re
import subprocess
import sys
import sysconfig
import textwrap
import venv
from pathlib import Path

import pytest

import timm_repaint

REPO = Path(__file__).resolve().parents[2]
USER = """
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

import timm_repaint
from timm_repaint import (
    DeepLabV2Masks,
    DeepLabV3Masks,
    FelzenszwalbMasks,
    MaskSource,
    RandomRepaint,
    Repaint,
    RepaintConfig,
    SuperpixelMasks,
    load_repainter,
    with_masks,
)

MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


class Halves:
    kind: str = 'segment'
    num_labels: int | None = None
    on_device: bool = False

    def __call__(self, image_u8: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
        labels = np.zeros(image_u8.shape[:2], np.uint16)
        labels[:, image_u8.shape[1] // 2 :] = 1
        return labels


def sources(weights: str) -> Sequence[MaskSource]:
    segments: list[MaskSource] = [FelzenszwalbMasks(scale=100.0, sigma=0.5, min_size=20), SuperpixelMasks()]
    return [Halves(), *segments, DeepLabV2Masks(weights), DeepLabV3Masks()]


def train(model: nn.Module, images: Tensor, target: Tensor) -> dict[str, Tensor]:
    config = RepaintConfig(MEAN, STD, masks='fh', width=8, prob=1.0)
    repaint = Repaint.from_config(config)
    assert repaint.config.width == 8
    repaint = Repaint(MEAN, STD, masks=Halves(), schedule=(1, 1), detail='swap').train()
    nn.functional.cross_entropy(model(repaint(images)), target).backward()  # type: ignore[no-untyped-call]
    found = repaint.step(scale=1.0)
    repaint.stop()
    torch.save(repaint.state_dict(), 'repaint.pth')
    metrics: dict[str, Tensor] = found.as_dict()
    return metrics


def to_tensor(picture: npt.NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)


in_workers = with_masks(to_tensor, masks=FelzenszwalbMasks(), mean=MEAN, std=STD)
transform = RandomRepaint(p=0.5, painter='shift', detail='keep')
painted: Tensor = load_repainter('repaint.pth').eval()(torch.zeros(1, 3, 32, 32), torch.zeros(1, 32, 32)).image_pm1
version: str = timm_repaint.__version__
same: type[timm_repaint.Repaint] = Repaint
"""
MISTAKES = """
from timm_repaint import FelzenszwalbMasks, Repaint, RepaintConfig, load_repainter, with_masks

Repaint((0.5,), (0.5,), widht=8)
Repaint((0.5,), (0.5,), width='8')
RepaintConfig((0.5,), (0.5,), prob='1')
FelzenszwalbMasks(scale='1')
load_repainter(1)
with_masks(3)
"""


@pytest.fixture(scope='module')
def mypy(tmp_path_factory):
    """Checks a text strictly, in an environment of which the package is an installed part, as a user has it."""
    folder = tmp_path_factory.mktemp('user')
    site = folder / 'installed'
    site.mkdir()
    (site / 'timm_repaint').symlink_to(REPO / 'timm_repaint', target_is_directory=True)
    venv.create(folder / 'venv', with_pip=False)
    (packages,) = (folder / 'venv').glob('lib/python*/site-packages')
    (packages / 'these.pth').write_text(f'{site}\n{sysconfig.get_path("purelib")}\n{sysconfig.get_path("platlib")}\n')

    def check(text: str) -> list[str]:
        (folder / 'own.py').write_text(text)
        command = [sys.executable, '-m', 'mypy', '--strict', '--python-executable', folder / 'venv' / 'bin' / 'python']
        command += ['--cache-dir', folder / 'cache', 'own.py']
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        return done.stdout.splitlines()

    return check


def test_the_users_file_has_every_public_name():
    (imported,) = re.findall(r'from timm_repaint import \((.*?)\)', USER, re.S)
    assert sorted(imported.replace(',', ' ').split()) == sorted(timm_repaint.__all__)


@pytest.mark.slow
def test_a_users_file_with_every_public_name_is_typed_strictly(mypy):
    assert mypy(USER) == ['Success: no issues found in 1 source file']
    lines = mypy(MISTAKES)[:-1]
    assert sorted({int(line.split(':')[1]) for line in lines}) == [4, 5, 6, 7, 8, 9], lines


def test_what_is_pickled_comes_back_and_the_names_are_there_in_each_way_to_ask_for_them(tmp_path):
    config = timm_repaint.RepaintConfig((0.5,) * 3, (0.5,) * 3, width=8)
    things = [config, timm_repaint.FelzenszwalbMasks(), timm_repaint.Repaint, timm_repaint.load_repainter]
    (tmp_path / 'things').write_bytes(pickle.dumps(things))
    code = """
    import pickle, sys
    config, masks, *functions = pickle.load(open(sys.argv[1], 'rb'))
    assert config.width == 8
    import timm_repaint
    assert isinstance(masks, timm_repaint.FelzenszwalbMasks)
    assert functions == [timm_repaint.Repaint, timm_repaint.load_repainter]
    assert set(timm_repaint.__all__) <= set(dir(timm_repaint))
    names = {}
    exec('from timm_repaint import *', names)
    assert set(names) - {'__builtins__'} == set(timm_repaint.__all__)
    assert all(names[name] is getattr(timm_repaint, name) for name in timm_repaint.__all__)
    assert not hasattr(timm_repaint, 'Repaints')
    """
    command = [sys.executable, '-c', textwrap.dedent(code), tmp_path / 'things']
    subprocess.run(command, cwd=REPO, check=True, timeout=100)
