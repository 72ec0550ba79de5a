"""--isda: its formula by hand, its statistics, its schedule, and its place in runs."""

import pytest
import torch
from timm.models import create_model
from torch.nn import functional as F

from tests.helpers import REPAINT, SHAPES, column, fine_tune_here, load_checkpoint, train_here
from tests.tiny import changed, snapshot, tiny_batch, tiny_classifier
from timm_repaint.baselines.isda import FeatureVariance, IsdaTask, augmented_logits, set_isda_epoch
from timm_repaint.engine.loop import task_role
from timm_repaint.errors import UsageError
from timm_repaint.gather import gather_rows

ISDA = ('--isda', 7.5, '--smoothing', 0)


def test_the_logits_by_hand():
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    weight = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]])
    variance = torch.tensor([[9.0, 9.0], [0.5, 2.0], [9.0, 9.0]])
    # Class 1: (1 - 0)^2 * 0.5 + (0 - 2)^2 * 2 = 8.5;  0;  (3 - 0)^2 * 0.5 + (1 - 2)^2 * 2 = 6.5; half of 4 times that.
    result = augmented_logits(logits, weight, variance, torch.tensor([1]), 4.0)
    torch.testing.assert_close(result, torch.tensor([[18.0, 2.0, 16.0]]))


def test_without_strength_the_logits_stay_and_otherwise_the_loss_grows():
    draw = torch.Generator().manual_seed(0)
    logits, weight = torch.randn(6, 5, generator=draw), torch.randn(5, 7, generator=draw)
    variance, target = torch.rand(5, 7, generator=draw), torch.randint(5, (6,), generator=draw)
    losses = [F.cross_entropy(augmented_logits(logits, weight, variance, target, s), target) for s in (0.0, 1.0, 2.0)]
    assert losses[0] == F.cross_entropy(logits, target)
    assert losses[0] < losses[1] < losses[2]


def test_the_statistics_are_those_of_all_batches_together():
    draw = torch.Generator().manual_seed(0)
    features = 3 + torch.randn(40, 6, generator=draw)
    target = torch.randint(3, (40,), generator=draw)
    statistics = FeatureVariance(4, 6)
    for batch, labels in zip(features.split(7), target.split(7), strict=True):
        statistics.update(batch, labels)
    for label in range(3):
        own = features[target == label]
        assert statistics.count[label] == len(own)
        torch.testing.assert_close(statistics.mean[label], own.mean(dim=0))
        torch.testing.assert_close(statistics.variance[label], own.var(dim=0, correction=0))
    assert statistics.variance[3].abs().sum() == 0


@pytest.fixture
def isda_task():
    torch.manual_seed(0)
    return IsdaTask(tiny_classifier(), 7.5, verbose=False).train()


def test_the_strength_grows_evenly_over_the_epochs(isda_task):
    strengths = []
    for epoch in range(4):
        set_isda_epoch(isda_task, epoch, 4)
        strengths.append(isda_task.strength)
    assert strengths == [0.0, 1.875, 3.75, 5.625]


def test_the_loss_is_that_of_the_augmented_logits_and_reaches_the_features(isda_task):
    batch, target = tiny_batch()
    isda_task.strength = 5.0
    result = isda_task(batch[:, :3], target)
    weight = isda_task.get_trainable_module().get_classifier().weight
    logits = augmented_logits(result['output'], weight, isda_task.statistics.variance, target, 5.0)
    torch.testing.assert_close(result['loss'], F.cross_entropy(logits, target))
    result['loss'].backward()
    assert all(p.grad is not None for p in isda_task.parameters())


def test_statistics_stay_while_the_task_only_judges_repaints(isda_task):
    (first, first_target), (second, target) = tiny_batch(), tiny_batch(seed=1)
    isda_task(first[:, :3], first_target)
    before, repaints = snapshot(isda_task), second[:, :3].clone().requires_grad_()
    with task_role(isda_task, learns=False, need_update=True):
        isda_task(repaints, target)['loss'].backward()
    assert repaints.grad.abs().sum() > 0 and not changed(isda_task, before)
    isda_task(repaints, target)
    assert {'statistics.count', 'statistics.mean', 'statistics.variance'} <= changed(isda_task, before)


def test_a_model_without_a_linear_classifier_is_refused():
    with pytest.raises(UsageError, match='classifier is one linear layer, that of --model is Identity'):
        IsdaTask(create_model('test_resnet', num_classes=0), 7.5, verbose=False)


def test_runs_with_and_without_repaint_keep_the_statistics_in_their_checkpoints(tmp_path):
    plain = train_here(tmp_path, *SHAPES, *ISDA, '--epochs', 2, name='plain')
    repaint = train_here(tmp_path, *REPAINT, *ISDA, '--epochs', 2)
    separate = train_here(tmp_path, *REPAINT, *ISDA, '--epochs', 2, '--repaint-separate-batches', name='separate')
    # Two epochs of 16 images; one of three batches of 8, which all train T, or two of the three.
    for run, images in ((plain, 32), (repaint, 24), (separate, 16)):
        state = load_checkpoint(run / 'last.pth.tar')['task_state']
        assert state['isda']['count'].sum() == images
    fine_tuned = fine_tune_here(repaint)
    before, after = (load_checkpoint(run / 'last.pth.tar')['task_state']['isda'] for run in (repaint, fine_tuned))
    assert after['count'].sum() == before['count'].sum() + 24
    assert column(plain, 'eval_loss')[-1] > 0


def gather(rank, address, folder):
    """What one of two processes knows after its own batch."""
    torch.distributed.init_process_group('gloo', init_method=address, rank=rank, world_size=2)
    features, target = (gather_rows(own) for own in (torch.full((2, 3), float(rank)), torch.full((2,), rank)))
    statistics = FeatureVariance(2, 3)
    statistics.update(features, target)
    torch.save((features, target, statistics.count), folder / f'{rank}.pt')
    torch.distributed.destroy_process_group()


def test_the_processes_of_a_run_share_their_statistics(tmp_path):
    address = f'file://{tmp_path}/rendezvous'
    torch.multiprocessing.spawn(gather, (address, tmp_path), nprocs=2)
    for rank in (0, 1):
        features, target, count = torch.load(tmp_path / f'{rank}.pt', weights_only=True)
        assert features[:, 0].tolist() == [0, 0, 1, 1] == target.tolist()
        assert count.tolist() == [2, 2]
