"""A kill between `last` and the other names of a checkpoint: the resumed run makes good what the state says."""

import argparse
import contextlib
import itertools

import pytest
import torch

from tests.helpers import load_checkpoint
from timm_repaint.engine.checkpoint import SafeSaver

METRICS = (3.0, 5.0, 1.0, None, 4.0, 7.0, 6.0)


def new_saver(folder, history=2):
    args = argparse.Namespace(model='m', save_epochs=[2, 5])
    model = torch.nn.Linear(1, 1)
    return SafeSaver(
        model, torch.optim.SGD(model.parameters()), args=args, checkpoint_dir=str(folder), max_history=history
    )


def save(saver, epoch):
    saver.save_checkpoint(epoch, METRICS[epoch])
    if epoch + 1 in saver.args.save_epochs:
        saver.save_milestone(epoch + 1)


def files(folder):
    """The epoch in each file, by its name."""
    return {path.name: load_checkpoint(path)['epoch'] for path in folder.iterdir()}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The files after each epoch of a run that nobody disturbs."""
    folder = tmp_path_factory.mktemp('whole')
    saver, seen = new_saver(folder), []
    for epoch in range(len(METRICS)):
        save(saver, epoch)
        seen.append(files(folder))
    assert seen[-1] == {
        'last.pth.tar': 6, 'model_best.pth.tar': 5, 'checkpoint-5.pth.tar': 5, 'checkpoint-6.pth.tar': 6,
        'milestone-2.pth.tar': 1, 'milestone-5.pth.tar': 4,
    }  # fmt: skip
    return seen


@pytest.mark.parametrize('killed', range(len(METRICS)))
@pytest.mark.parametrize('step', range(3))
def test_a_kill_between_the_names_of_a_checkpoint_leaves_the_same_files_in_the_end(killed, step, whole, tmp_path):
    saver = new_saver(tmp_path)
    for epoch in range(killed):
        save(saver, epoch)
    honest, count = saver._duplicate, itertools.count()

    def kill(src, dst):
        if next(count) == step:
            raise KeyboardInterrupt
        honest(src, dst)

    saver._duplicate = kill
    with contextlib.suppress(KeyboardInterrupt):
        save(saver, killed)
    saver = new_saver(tmp_path)
    saver.load_state_dict_from_checkpoint(str(tmp_path / 'last.pth.tar'))
    assert files(tmp_path) == whole[killed]
    for epoch in range(killed + 1, len(METRICS)):
        save(saver, epoch)
    assert files(tmp_path) == whole[-1]
