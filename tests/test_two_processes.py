"""Several processes: two with half a batch each train as one with the whole batch, and all hold the same weights."""

import os
import socket
from unittest.mock import patch

import pytest
import torch
from timm.models import create_model
from timm.task import ClassificationTask
from timm.utils import unwrap_model
from torch import nn

import fine_tune
import train
from tests.helpers import REPAINT, SCHEDULE, TINY, call_main, column, load_checkpoint, read_summary, same_tensors
from tests.processes import start_two
from tests.tiny import NUM_CLASSES, loop_args, tiny_batch, tiny_task
from timm_repaint import repainter as repainter_module
from timm_repaint.engine import run as run_module
from timm_repaint.engine.repaint_loop import repaint_one_epoch
from timm_repaint.networks import label_maps

CPU = torch.device('cpu')
UPDATES = 6


class StillNorm(nn.BatchNorm2d):
    """A batch norm that never looks at the batch."""

    def train(self, mode=True):
        return super().train(False)


def task_without_batch_statistics(prob=0.5):
    """T is a transformer, and G's norms stand still. SGD instead of Adam, whose first step is a sign: of noise too."""
    torch.manual_seed(0)
    model = create_model('test_vit', num_classes=NUM_CLASSES, img_size=32)
    task = tiny_task(ClassificationTask(model, verbose=False), prob=prob)
    for optimizer in task.optimizers.values():
        optimizer.adam = torch.optim.SGD(optimizer.parameters, lr=0.01)
    for module in task.repainter.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = StillNorm
            module.eval()
    return task


def draw_alike(shape, device, generator=None):
    """In place of random numbers: each image of a batch gets the same."""
    return torch.randn(shape[1:], generator=torch.Generator().manual_seed(1)).expand(shape)


def whole_batches():
    """Batches of 8 with different numbers of segments in their halves."""
    batches = [tiny_batch(8, seed) for seed in range(UPDATES)]
    for batch, _ in batches:
        batch[[0, 1, 4, 5], 3] = (batch[[0, 1, 4, 5], 3] > 100).float()
    return batches


def half_of(batch, rank):
    """The images of one of two processes: of the repainted first half and of the rest its share."""
    return torch.cat([batch[2 * rank : 2 * rank + 2], batch[4 + 2 * rank : 6 + 2 * rank]])


def train_whole_or_half(rank, world_size):
    """Losses and weights after two updates of E+G and six of T and D."""
    task, batches = task_without_batch_statistics(), whole_batches()
    optimizer = torch.optim.SGD(task.task.parameters(), lr=0.05)
    if world_size > 1:
        batches = [(half_of(batch, rank), half_of(target, rank)) for batch, target in batches]
        task.prepare_distributed()
    args = loop_args(
        distributed=world_size > 1, world_size=world_size, rank=rank, repaint_separate_batches=False, device='cpu'
    )
    with patch.object(label_maps, 'draw_normal', draw_alike), patch.object(repainter_module, 'draw_normal', draw_alike):
        means = repaint_one_epoch(0, batches, optimizer, args, task, CPU)
    state = {key.replace('module.', ''): value for key, value in task.state_dict().items()}
    return dict(means), state


def in_one_of_two(rank, address, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=address, rank=rank, world_size=2)
    torch.save(train_whole_or_half(rank, 2), folder / f'{rank}.pt')
    torch.distributed.destroy_process_group()


def test_two_processes_with_half_a_batch_each_have_the_losses_and_weights_of_one_with_the_whole(tmp_path):
    start_two(in_one_of_two, f'file://{tmp_path}/rendezvous', tmp_path)
    means, weights = train_whole_or_half(0, 1)
    assert means['g_task'] > 0 and means['g_segment_kl'] > 0 and means['d_loss'] > 0
    for rank in (0, 1):
        their_means, their_weights = torch.load(tmp_path / f'{rank}.pt', weights_only=True)
        assert their_means == pytest.approx(means, rel=1e-5, abs=1e-5)
        assert their_weights.keys() == weights.keys()
        for name, value in weights.items():
            torch.testing.assert_close(their_weights[name], value, rtol=1e-5, atol=1e-6, msg=name)


def free_port():
    with socket.socket() as listener:
        listener.bind(('localhost', 0))
        return listener.getsockname()[1]


def watched_run(rank, port, folder, main, args):
    """A script as one of two processes, which notes its weights and latents after each epoch."""
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='localhost', MASTER_PORT=str(port)
    )
    drawn, draw, run_epoch = [], repainter_module.draw_normal, run_module.run_epoch

    def draw_and_note(shape, device, generator=None):
        numbers = draw(shape, device, generator)
        drawn.append(float(numbers.flatten()[0]))
        return numbers

    def run_and_note(run, epoch, functions):
        drawn.clear()
        result = run_epoch(run, epoch, functions)
        task, state = run.task, dict(unwrap_model(run.task.get_trainable_module()).state_dict())
        if run.args.model_ema:
            state |= {
                f'average {key}': value for key, value in task.get_trainable_module(ema=True).state_dict().items()
            }
        if run.args.repaint:  # G's running statistics, which only evaluation uses, are the first process's
            state |= {f'generator {name}': value.detach() for name, value in task.repainter.named_parameters()}
            state |= {f'discriminator {key}': value for key, value in task.discriminator.state_dict().items()}
        torch.save((state, drawn[:1]), folder / f'epoch-{epoch}-process-{rank}.pt')
        return result

    with (
        patch.object(run_module, 'run_epoch', run_and_note),
        patch.object(repainter_module, 'draw_normal', draw_and_note),
    ):
        call_main(main, *args)


OPTIONS = ('--train-num-samples', 96, '--epochs', 3, '--repaint-epochs', 2)
VARIANTS = {
    'accumulation and average': ('-b', 4, '--grad-accum-steps', 2, '--model-ema', '--model-ema-decay', 0.5),
    'statistics of the first process': ('--dist-bn', 'broadcast', '--no-ddp-bb'),
    'norms apart': ('--repaint-split-bn', '--cutmix', 1.0),
}


@pytest.mark.parametrize('options', VARIANTS.values(), ids=VARIANTS)
def test_both_processes_hold_the_same_weights_after_each_epoch_and_draw_their_own_latents(options, tmp_path):
    run = tmp_path / 'run'
    args = (*TINY, *SCHEDULE, *REPAINT, *OPTIONS, *options, '--output', tmp_path, '--experiment', 'run')
    # One after the other: the first process writes the checkpoint after the second one is done.
    start_two(watched_run, free_port(), tmp_path, train.main, args)
    start_two(watched_run, free_port(), tmp_path, fine_tune.main, (run,))
    assert column(run, 'epoch') == [0, 1] and column(run / 'fine_tune', 'epoch') == [2]
    assert all(row['train_skipped_updates'] == 0 for row in read_summary(run))
    states = []
    for epoch in range(3):
        (first, drawn), (second, drawn_by_second) = (
            torch.load(tmp_path / f'epoch-{epoch}-process-{rank}.pt', weights_only=True) for rank in (0, 1)
        )
        assert [name for name in first if not torch.equal(first[name], second[name])] == []
        assert len(drawn) == (epoch < 2) and (drawn != drawn_by_second or not drawn)
        states.append(first)
    assert not same_tensors(states[0], states[1])
    saved = load_checkpoint(run / 'fine_tune' / 'last.pth.tar')
    assert same_tensors(dict(saved['state_dict']), {key: states[2][key] for key in saved['state_dict']})
