"""Fixtures for all tests: where real images, the paper and facts about timm's script lie; one thread a process."""

import os
from pathlib import Path

import pytest
import torch

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True, scope='session')
def _one_thread():
    torch.set_num_threads(1)  # small networks: two processes with a thread each beat one with two


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """Real photographs, not part of the product: `TIMM_REPAINT_DATA`, or `../shared/data` beside the checkout."""
    path = Path(os.environ.get('TIMM_REPAINT_DATA', REPO.parent / 'shared' / 'data'))
    if not path.is_dir():
        pytest.skip(f'no real images: {path} does not exist; set TIMM_REPAINT_DATA')
    return path


@pytest.fixture(scope='session')
def shared_timm() -> Path:
    """Facts about timm's training script: `TIMM_REPAINT_FACTS`, or `../shared/timm` beside the checkout."""
    path = Path(os.environ.get('TIMM_REPAINT_FACTS', REPO.parent / 'shared' / 'timm'))
    if not path.is_dir():
        pytest.skip(f"no facts about timm's script: {path} does not exist; set TIMM_REPAINT_FACTS")
    return path


@pytest.fixture(scope='session')
def shared_paper() -> Path:
    """The paper's text: `TIMM_REPAINT_PAPER`, or `../shared/paper` beside the checkout."""
    folder = Path(os.environ.get('TIMM_REPAINT_PAPER', REPO.parent / 'shared' / 'paper'))
    path = folder / 'repaint-bmvc2021.txt'
    if not path.is_file():
        pytest.skip(f'no text of the paper: {path} does not exist; set TIMM_REPAINT_PAPER')
    return path
