"""A Repaint in checkpoints: of the script's runs, of tasks that carry it."""

import pytest
import torch
from timm.task import ClassificationTask
from torch import nn

from tests.helpers import REPAINT, load_checkpoint, load_repaint, same_tensors, train_here
from tests.tiny import (
    MEAN,
    STD,
    adam_steps,
    changed,
    loop_args,
    snapshot,
    tiny_batch,
    tiny_classifier,
    tiny_repaint,
    tiny_task,
)
from tests.unit.repaint.test_state import CPU, through_a_file, trained
from timm_repaint import Repaint
from timm_repaint.engine.checkpoint import CheckpointParts, resume_repaint
from timm_repaint.engine.loop import train_one_epoch
from timm_repaint.errors import UsageError
from timm_repaint.saved import load_repainter

pytestmark = pytest.mark.usefixtures('seeded')


def trained_task(**options):
    task, repaint = tiny_task(), tiny_repaint(**options)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.05, momentum=0.9)
    task.setup_ema(decay=0.5)
    batches = [tiny_batch(seed=seed) for seed in range(3)]
    train_one_epoch(0, task, batches, optimizer, loop_args(), task, CPU, repaint=repaint)
    return task, repaint, optimizer


def test_checkpoint_state_dict_holds_only_the_classifier():
    task, repaint, _ = trained_task()
    state = through_a_file(CheckpointParts(task, repaint).get_checkpoint_state())
    assert state.keys() == {'state_dict', 'repaint'}
    fresh = tiny_classifier()
    fresh.load_state_dict(state['state_dict'], strict=True)
    assert changed(fresh, snapshot(task.trainable_module)) == set()
    other = tiny_repaint()
    other.load_state_dict(state['repaint'])
    assert same_tensors(dict(other.state_dict()), dict(repaint.state_dict()))


def test_the_weight_averages_state_has_no_generator():
    task, repaint, _ = trained_task()
    state = CheckpointParts(task, repaint).get_checkpoint_state(ema=True)
    assert state.keys() == {'state_dict_ema'}
    tiny_classifier().load_state_dict(state['state_dict_ema'], strict=True)


def test_without_a_repaint_the_checkpoint_is_timms():
    task, _, _ = trained_task()
    assert CheckpointParts(task, None).get_checkpoint_state().keys() == task.get_checkpoint_state().keys()


def test_an_epoch_from_a_checkpoint_goes_on_bit_by_bit():
    task, repaint, optimizer = trained_task()
    saved = {**CheckpointParts(task, repaint).get_checkpoint_state(), 'optimizer': optimizer.state_dict()}
    saved = through_a_file(saved)
    torch.manual_seed(99)
    other_task, other = tiny_task(), tiny_repaint()
    other_optimizer = torch.optim.SGD(other_task.parameters(), lr=0.05, momentum=0.9)
    other_task.load_checkpoint_state(saved['state_dict'])
    other.load_state_dict(saved['repaint'])
    other_optimizer.load_state_dict(saved['optimizer'])
    for each, its, own in ((task, optimizer, repaint), (other_task, other_optimizer, other)):
        torch.manual_seed(5)
        batches = [tiny_batch(seed=seed) for seed in (7, 8, 9)]
        train_one_epoch(1, each, batches, its, loop_args(), each, CPU, repaint=own)
    assert changed(task.trainable_module, snapshot(other_task.trainable_module)) == set()
    assert same_tensors(dict(repaint.state_dict()), dict(other.state_dict()))


def test_a_checkpoint_without_a_generator_says_how_to_start_from_its_classifier(tmp_path):
    path = tmp_path / 'plain.pth.tar'
    torch.save(ClassificationTask(tiny_classifier(), verbose=False).get_checkpoint_state(), path)
    with pytest.raises(UsageError, match=r'of a run without --repaint, .* --initial-checkpoint'):
        resume_repaint(tiny_repaint(), str(path), loop_args(no_resume_opt=False))


def test_a_resume_without_optimizers_keeps_the_networks_alone(tmp_path):
    task, repaint, _ = trained_task()
    torch.save(CheckpointParts(task, repaint).get_checkpoint_state(), tmp_path / 'last.pth.tar')
    other = tiny_repaint()
    resume_repaint(other, str(tmp_path / 'last.pth.tar'), loop_args(no_resume_opt=True))
    assert changed(other.repainter, snapshot(repaint.repainter)) == set() and other.updates == 3
    assert not any(tensor.any() for optimizer in other.optimizers.values() for tensor in optimizer.tensors)


class Network(nn.Module):
    """A network of somebody's own with the generator ahead of the model."""

    def __init__(self, repaint):
        super().__init__()
        self.backbone, self.repaint = tiny_classifier(), repaint


FILES = {
    'of train.py': lambda r: CheckpointParts(tiny_task(), r).get_checkpoint_state(),
    'by itself': lambda r: r.state_dict(),
    "in Lightning's": lambda r: {'epoch': 3, 'state_dict': Network(r).state_dict(), 'pytorch-lightning_version': '2.6'},
    'in a dict of models': lambda r: {'model': Network(r).state_dict(), 'optimizer': {}},
    "in a module's": lambda r: Network(r).state_dict(),
    'behind a wrapper': lambda r: {'state_dict': nn.ModuleDict({'module': Network(r)}).state_dict()},
}


@pytest.mark.parametrize('make', FILES.values(), ids=FILES)
def test_the_repainter_of_a_file_paints_as_the_one_that_was_saved(make, tmp_path):
    repaint, _ = trained()
    path = tmp_path / 'file.pth'
    torch.save(make(repaint), path)
    image_pm1, labels = torch.rand(1, 3, 32, 32) * 2 - 1, torch.randint(3, (1, 32, 32))
    paints = [
        net.eval()(image_pm1, labels, torch.Generator().manual_seed(1)).image_pm1
        for net in (repaint.repainter, load_repainter(str(path)))
    ]
    assert torch.equal(*paints)


def task_that_carries(repaint):
    """As docs/own-loop.md has it for timm's own script."""
    task = ClassificationTask(tiny_classifier(), nn.CrossEntropyLoss())
    task.repaint = repaint
    task.get_task_state = lambda ema=False: {} if ema else task.repaint.state_dict()
    task.load_task_state = lambda state, strict, ema: ema or task.repaint.load_state_dict(state)
    return task


def test_a_task_of_timm_that_carries_repaint_has_its_state_in_the_checkpoint(tmp_path):
    repaint, _ = trained()
    saved = through_a_file(task_that_carries(repaint).get_checkpoint_state())
    other = task_that_carries(tiny_repaint())
    other.load_checkpoint_state(saved['state_dict'], saved['task_state'])
    assert same_tensors(dict(other.repaint.state_dict()), dict(repaint.state_dict())) and other.repaint.updates == 4
    torch.save(saved, tmp_path / 'last.pth.tar')
    again = load_repainter(str(tmp_path / 'last.pth.tar'))
    assert same_tensors(again.state_dict(), repaint.repainter.state_dict())


def test_an_extra_state_of_another_module_is_not_taken_for_the_generators(tmp_path):
    class Counter(nn.Module):
        def get_extra_state(self):
            return torch.tensor([1, 2])

    both = nn.ModuleDict({'counter': Counter(), 'repaint': tiny_repaint()})
    torch.save({'state_dict': both.state_dict()}, tmp_path / 'file.pth')
    loaded = load_repainter(str(tmp_path / 'file.pth'))
    assert changed(loaded, snapshot(both['repaint'].repainter)) == set()


def test_a_run_of_the_script_leaves_such_a_checkpoint(tmp_path):
    run = train_here(tmp_path, *REPAINT, '--epochs', 1)
    path = run / 'last.pth.tar'
    checkpoint = load_checkpoint(path)
    assert 'task_state' not in checkpoint and all(isinstance(v, torch.Tensor) for v in checkpoint['repaint'].values())
    repaint = load_repaint(path)
    assert (repaint.updates, adam_steps(repaint)) == (3, (3, 1))
    assert changed(load_repainter(str(path)), snapshot(repaint.repainter)) == set()


def test_another_repaint_can_start_from_it_with_its_shape_left_out_and_that_is_said(tmp_path, caplog):
    repaint, _ = trained(width=4, latent_dim=5, detail='none')
    torch.save(repaint.state_dict(), tmp_path / 'file.pth')
    other = Repaint(MEAN, STD, masks=None, checkpoint=str(tmp_path / 'file.pth'))
    (said,) = [line for line in caplog.messages if f'E and G are those of {tmp_path}/file.pth: ' in line]
    assert all(part in said for part in ('width 4', 'detail none')) and 'temperature' not in said
    assert other.repainter.config == repaint.repainter.config
    assert changed(other.repainter, snapshot(repaint.repainter)) == set() and other.updates == 0
    with pytest.raises(UsageError, match=r'holds another generator: width is 4 there, 8 here'):
        Repaint(MEAN, STD, masks=None, width=8, checkpoint=str(tmp_path / 'file.pth'))


def test_the_state_may_have_any_name_in_a_loops_file(tmp_path):
    repaint, _ = trained(width=4)
    torch.save({'net': {'weight': torch.ones(1)}, 'rp': repaint.state_dict()}, tmp_path / 'file.pth')
    found = load_repainter(tmp_path / 'file.pth')
    assert changed(found, snapshot(repaint.repainter)) == set()


@pytest.mark.parametrize('state', [{'state_dict': {'weight': torch.ones(1)}}, {'weight': torch.ones(1)}, [1], {}])
def test_a_file_without_a_generator_is_named(state, tmp_path):
    path = tmp_path / 'plain.pth.tar'
    torch.save(state, path)
    with pytest.raises(
        UsageError, match=r'plain\.pth\.tar has no generator: it is not a checkpoint of train.py --repaint'
    ):
        load_repainter(str(path))


def test_a_file_may_be_a_path_and_the_temperature_anothers(tmp_path):
    file = tmp_path / 'r.pt'
    torch.save(tiny_repaint().state_dict(), file)
    repaint = tiny_repaint(checkpoint=file, temperature=0.5)
    assert repaint.repainter.temperature == repaint.repainter.config['temperature'] == 0.5
    assert same_tensors(load_repainter(file).state_dict(), load_repainter(str(file)).state_dict())
    assert load_repainter(file).temperature == 1.0
    tiny_repaint(temperature=0.5).load_state_dict(repaint.state_dict())
