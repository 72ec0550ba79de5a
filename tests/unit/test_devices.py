"""--device: what torch cannot use is told in a line by every command that has it."""

import pytest
import torch

from tests.helpers import SHAPES, call_main, train_here
from timm_repaint import paint
from timm_repaint.devices import find_device
from timm_repaint.errors import UsageError
from timm_repaint.masks import __main__ as masks
from timm_repaint.report import __main__ as report

UNKNOWN = '--device foo does not work here: Expected one of cpu, cuda'
MANY = 99  # more GPUs than any machine has


@pytest.mark.parametrize('name', ['foo', 'meta', '', 'cuda:x', f'cuda:{MANY}', 'hpu'])
def test_a_device_that_torch_cannot_use_is_refused_in_a_line(name):
    with pytest.raises(
        UsageError, match=f'--device {name} does not work here: .*; for the CPU give --device cpu'
    ) as told:
        find_device(name)
    assert '\n' not in str(told.value) and len(str(told.value)) < 200
    assert find_device('cpu') == torch.device('cpu')


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_a_gpu_that_is_not_there_is_told():
    with pytest.raises(UsageError, match='--device cuda does not work here'):
        find_device('cuda')


def test_commands_tell_it(tmp_path, shared_data):
    images = shared_data / 'cue-conflict' / 'cat'
    with pytest.raises(UsageError, match=UNKNOWN):
        call_main(paint.main, '--painter', 'shift', images, tmp_path / 'painted', '--device', 'foo')
    with pytest.raises(UsageError, match=UNKNOWN):
        call_main(masks.main, images, tmp_path / 'masks', '--mask', 'superpixels', '--device', 'foo')
    with pytest.raises(UsageError, match=UNKNOWN):
        call_main(report.main, 'shape-bias', tmp_path / 'none.pth.tar', images, '--device', 'foo')
    with pytest.raises(UsageError, match=UNKNOWN):  # and with it all that start as training does
        train_here(tmp_path, *SHAPES, '--epochs', 1, '--device', 'foo')
