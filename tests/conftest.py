"""Fixtures for all tests: where real images, the paper and facts about timm's script lie; one thread a process."""

import os
from pathlib import Path

import pytest
import torch

REPO = Path(__file__).resolve().parent.parent


def pytest_addoption(parser):
    parser.addoption('--device', default='cpu', help='where tests with the fixture `device` compute: cpu or cuda')


def pytest_collection_modifyitems(config, items):
    """A test marked with `device` claims something of those kinds of device alone."""
    chosen = torch.device(config.getoption('--device')).type
    for item in items:
        for marker in item.iter_markers('device'):
            if chosen not in marker.args:
                item.add_marker(
                    pytest.mark.skip(reason=f'its claim holds on {", ".join(marker.args)}, not on {chosen}')
                )


@pytest.fixture
def device(request) -> torch.device:
    """The device of `--device`; tests that claim the same on each ask for it."""
    return torch.device(request.config.getoption('--device'))


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


@pytest.fixture
def seeded():
    """The same random numbers in each test, for files that say so in their `pytestmark`."""
    torch.manual_seed(0)
