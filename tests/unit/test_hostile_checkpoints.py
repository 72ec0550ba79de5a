"""Checkpoints that anybody may have made, damaged or hostile: a reader loads them or gives a UsageError, in bounds."""

import contextlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile import FUZZ, SCALARS, bounds, damaged, only_told, other_value  # noqa: F401
from tests.tiny import loop_args, tiny_repaint, tiny_task
from timm_repaint.engine.checkpoint import SafeSaver, resume, resume_repaint
from timm_repaint.engine.fine_tune_phase import epochs_done
from timm_repaint.engine.setup import Precision
from timm_repaint.saved import load_repainter

pytestmark = pytest.mark.usefixtures('bounds')


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A training checkpoint, small, and its bytes."""
    task, repaint = tiny_task(), tiny_repaint()
    content = {
        'epoch': 2, 'arch': 'test_resnet', 'version': 2, 'metric': 12.5,
        'state_dict': task.get_checkpoint_state()['state_dict'],
        'optimizer': torch.optim.SGD(task.parameters(), lr=0.1, momentum=0.9).state_dict(),
        'repaint': repaint.state_dict(),
        'saver': {
            'checkpoint_files': [('checkpoint-2.pth.tar', 12.5)], 'best_epoch': 2, 'best_metric': 12.5,
            'pending': (2, 12.5),
        },
    }  # fmt: skip
    path = tmp_path_factory.mktemp('checkpoint') / 'last.pth.tar'
    torch.save(content, path)
    return content, path.read_bytes()


def read_all_of(path):
    """Everybody who reads a checkpoint."""
    task = tiny_task()
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1, momentum=0.9)
    args = loop_args(no_resume_opt=False, model='test_resnet', model_ema=True, model_ema_decay=0.9)
    args.model_ema_warmup = args.model_ema_force_cpu = False
    precision = Precision(None, contextlib.nullcontext, None)
    saver = SafeSaver(task, optimizer, checkpoint_dir=str(path.parent))
    yield lambda: load_repainter(str(path))
    yield lambda: epochs_done(str(path))
    yield lambda: resume(task, str(path), optimizer, precision, args)
    yield lambda: resume_repaint(tiny_repaint(), str(path), args)
    yield lambda: saver.load_state_dict_from_checkpoint(str(path))


@settings(FUZZ, max_examples=10)
@given(data=st.data())
def test_damaged_checkpoints(data, checkpoint, tmp_path):
    path = tmp_path / 'last.pth.tar'
    path.write_bytes(data.draw(damaged(checkpoint[1])))
    for reader in read_all_of(path):
        with only_told():
            reader()


TENSORS = st.sampled_from(
    [torch.zeros(3), torch.tensor(float('nan')), torch.zeros(2, 2, dtype=torch.int8), torch.zeros(0)]
)


@settings(FUZZ, max_examples=12)
@given(data=st.data())
def test_checkpoints_of_other_values(data, checkpoint, tmp_path):
    path = tmp_path / 'last.pth.tar'
    torch.save(data.draw(other_value(checkpoint[0], SCALARS | TENSORS | st.lists(SCALARS, max_size=2))), path)
    for reader in read_all_of(path):
        with only_told():
            reader()


def test_a_checkpoint_cannot_name_files_elsewhere_for_deletion(tmp_path):
    run = tmp_path / 'run'
    run.mkdir()
    (tmp_path / 'mine.txt').touch()
    saver = SafeSaver(tiny_task(), None, checkpoint_dir=str(run), max_history=1)
    saver.load_state_dict({'checkpoint_files': [(str(tmp_path / 'mine.txt'), 1.0), ('../mine.txt', 2.0)]})
    assert saver.checkpoint_files == []
