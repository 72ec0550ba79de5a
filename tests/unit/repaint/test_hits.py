"""What a repaint phase counts as right."""

import copy

import pytest
import torch
from timm.data import Mixup
from timm.task import ClassificationTask

from tests.tiny import (
    NUM_CLASSES,
    changed,
    loop_args,
    snapshot,
    tiny_batch,
    tiny_repaint,
    tiny_task,
)
from tests.unit.repaint.test_forward import CPU, Always, run_epoch
from timm_repaint.engine.meters import TrainMeters

pytestmark = pytest.mark.usefixtures('seeded')


def hits_of(output, target, prob=0.5):
    """Mean hits on repaints and originals, in percent, of one batch of that many images."""
    repaint, meters = tiny_repaint(prob=prob), TrainMeters(repaints=True)
    repaint(tiny_batch(len(target))[0], torch.zeros(len(target)))
    meters.add_task({'loss': torch.tensor(1.0), 'output': output}, len(target), target, repaint)
    means = meters.means(loop_args(), CPU)
    return means['hits_repaint'], means['hits_original']


def test_hits_are_counted_by_the_largest_logit():
    output = torch.tensor([[0.1, 0.9], [2.0, 1.0], [0.0, 3.0], [-1.0, -2.0]])
    assert hits_of(output, torch.tensor([1, 1, 1, 1])) == (50.0, 50.0)
    assert hits_of(output, torch.tensor([1, 0, 0, 1])) == (100.0, 0.0)


def test_outputs_that_are_no_logits_and_soft_targets_count_no_image():
    nothing = pytest.approx((float('nan'), float('nan')), nan_ok=True)
    assert hits_of(torch.zeros(2, 3, 4), torch.tensor([0, 1])) == nothing
    assert hits_of((torch.zeros(2, 4), torch.zeros(2, 4)), torch.tensor([0, 1])) == nothing
    assert hits_of(torch.zeros(2, 4), torch.zeros(2, 4)) == nothing


@pytest.mark.parametrize('mixup', [None, Mixup(mixup_alpha=1.0, num_classes=NUM_CLASSES)])
def test_hits_on_repaints_and_on_originals_are_kept_apart(mixup):
    task = ClassificationTask(Always(2), criterion_kwargs={'soft_targets': mixup is not None}, verbose=False).train()
    target = torch.tensor([2, 2, 2, 0, 2, 1, 0, 3])
    means = run_epoch(task, tiny_repaint(prob=0.5), [(tiny_batch(8)[0], target)], mixup_fn=mixup)
    assert (means['hits_repaint'], means['hits_original']) == (75.0, 25.0)
    task = ClassificationTask(Always(2), verbose=False).train()
    means = run_epoch(task, tiny_repaint(prob=0.25, mix='both'), [(tiny_batch(8)[0], target)])
    assert (means['hits_repaint'], means['hits_original']) == (100.0, 50.0)


def test_at_prob_1_there_are_no_hits_on_originals():
    means = run_epoch(tiny_task(), tiny_repaint(prob=1.0), [tiny_batch()])
    assert means['hits_repaint'] >= 0 and means['hits_original'] != means['hits_original']


def test_repaints_move_the_tasks_running_statistics_too():
    repaint, task = tiny_repaint(prob=0.5), tiny_task()
    twin = copy.deepcopy(task)
    batch, target = tiny_batch(8)
    seen, _ = repaint(batch, target)
    task(seen, target)
    twin(batch[4:, :3], target[4:])
    assert changed(task, snapshot(twin))
