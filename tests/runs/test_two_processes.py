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
from tests.tiny import NUM_CLASSES, loop_args, overflow_once, paints_next, tiny_batch, tiny_repaint, tiny_task
from timm_repaint.engine import run as run_module
from timm_repaint.engine.loop import train_one_epoch
from timm_repaint.networks import label_maps

CPU = torch.device('cpu')
UPDATES = 6


class StillNorm(nn.BatchNorm2d):
    """A batch norm that never looks at the batch."""

    def train(self, mode=True):
        return super().train(False)


def parts_without_batch_statistics(seed=0):
    """T is a transformer, and G's norms stand still. Adam's steps are almost linear, not signs: of noise too."""
    torch.manual_seed(seed)
    model = create_model('test_vit', num_classes=NUM_CLASSES, img_size=32)
    task, repaint = ClassificationTask(model, verbose=False).train(), tiny_repaint()
    for optimizer in repaint.optimizers.values():
        optimizer.adam.param_groups[0].update(lr=10.0, eps=1000.0)
    for module in repaint.repainter.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = StillNorm
            module.eval()
    return task, repaint


def draw_alike(shape, device, generator=None):
    """In place of random numbers: each image of a batch gets the same."""
    return torch.randn(shape[1:], generator=torch.Generator().manual_seed(1)).expand(shape)


def half_of(batch, rank):
    """The images of one of two processes: of the repainted first half and of the rest its share."""
    return torch.cat([batch[2 * rank : 2 * rank + 2], batch[4 + 2 * rank : 6 + 2 * rank]])


def state_of(task, repaint):
    """All weights, statistics, moments and counters."""
    state = {f'T {name.removeprefix("module.")}': value for name, value in task.trainable_module.state_dict().items()}
    moments = {f'moments of {name}': tensor for name, tensor in named_moments(repaint)}
    counters = {'skipped': torch.tensor(list(repaint.skipped.values())), 'updates': torch.tensor(repaint.updates)}
    return {**state, **repaint.state_dict(), **moments, **counters}


def named_moments(repaint):
    for name, optimizer in repaint.optimizers.items():
        for number, tensor in enumerate(optimizer.tensors):
            yield f'{name} {number}', tensor


def train_part(task, repaint, rank, world_size, **options):
    """Losses and state after two updates of E+G and six of T and D."""
    batches = [tiny_batch(8, seed) for seed in range(UPDATES)]
    optimizer = torch.optim.SGD(task.parameters(), lr=0.05)
    if world_size > 1:
        batches = [(half_of(batch, rank), half_of(target, rank)) for batch, target in batches]
        task.prepare_distributed()
    args = loop_args(distributed=world_size > 1, world_size=world_size, rank=rank, device='cpu', **options)
    means = train_one_epoch(0, task, batches, optimizer, args, task, CPU, repaint=repaint)
    return dict(means), state_of(task, repaint)


def train_whole_or_half(rank, world_size, accumulation):
    task, repaint = parts_without_batch_statistics()
    with patch.object(label_maps, 'draw_normal', draw_alike):
        return train_part(task, repaint, rank, world_size, grad_accum_steps=accumulation)


def in_one_of_two(rank, address, folder, function, *args):
    """Keep what function(rank, 2, *args) returns."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=address, rank=rank, world_size=2)
    torch.save(function(rank, 2, *args), folder / f'{rank}.pt')
    torch.distributed.destroy_process_group()


def results_of_two(folder, function, *args):
    start_two(in_one_of_two, f'file://{folder}/rendezvous', folder, function, *args)
    return [torch.load(folder / f'{rank}.pt', weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize('accumulation', [1, 2])
def test_two_processes_with_half_a_batch_each_have_the_losses_and_weights_of_one_with_the_whole(tmp_path, accumulation):
    results = results_of_two(tmp_path, train_whole_or_half, accumulation)
    means, state = train_whole_or_half(0, 1, accumulation)
    del state['_extra_state']
    assert means['g_segment_kl'] > 0 and means['d_loss'] > 0
    assert state['updates'] == UPDATES // accumulation and state['moments of generator 0'] == 2 // accumulation
    for their_means, theirs in results:
        del theirs['_extra_state']
        assert their_means == pytest.approx(means, rel=1e-5, abs=1e-5)
        assert theirs.keys() == state.keys()
        for name, value in state.items():
            torch.testing.assert_close(theirs[name], value, rtol=1e-5, atol=1e-6, msg=name)


# From the first process, and together ---------------------------------------------------------------------------------


def differ(first, second):
    """Names of tensors that are not the same in any bit (nan equals nan)."""
    assert first.keys() == second.keys()
    return {name for name in first if not torch.equal(first[name].nan_to_num(9.0), second[name].nan_to_num(9.0))}


def own_statistics(names):
    """Those of G's batch norms, which are of each process's images."""
    return {name for name in names if 'repainter' in name and 'norm.' in name}


def train_from_different_starts(rank, world_size):
    """The state ahead of the first batch, after it, and after some more."""
    torch.manual_seed(rank)
    task, repaint = tiny_task(), tiny_repaint()
    repaint.updates = 1 + rank  # the first one's counts
    if rank == 0:  # an optimizer's state
        repaint.optimizers['generator'].tensors[1].fill_(0.25)
    before = {name: value.clone() for name, value in state_of(task, repaint).items()}
    batch, target = tiny_batch(8)
    images, _ = repaint(half_of(batch, rank), half_of(target, rank))
    repaint.drop()
    sent = {name: value.clone() for name, value in state_of(task, repaint).items()}
    assert len(images) == 4
    return before, sent, train_part(task, repaint, rank, world_size)[1]


def test_the_first_batch_gives_all_processes_the_first_ones_weights_and_state_which_then_stay_the_same(tmp_path):
    (first, first_sent, first_end), (second, second_sent, second_end) = results_of_two(
        tmp_path, train_from_different_starts
    )
    networks = {name for name in first if name.startswith(('repainter', 'discriminator')) and first[name].ndim > 1}
    assert networks <= differ(first, second)
    assert 'updates' in differ(first, second) and 'moments of generator 1' in differ(first, second)
    of_task = {name for name in first if name.startswith('T ')}
    assert differ(first, first_sent) == set() == differ(first_sent, second_sent) - of_task
    ends_apart = differ(first_end, second_end)
    assert ends_apart - own_statistics(ends_apart) - {name for name in of_task if 'running' in name} == set()
    assert own_statistics(ends_apart) and {name for name in networks if 'weight' in name} <= differ(first, first_end)
    assert first_end['updates'] == 1 + UPDATES and first_end['moments of generator 0'] == 2  # in updates 2 and 5


def overflow_in_the_second(rank, world_size, kind):
    """A state after an update of everybody's in which something is not finite in the second process alone; losses."""
    torch.manual_seed(0)
    task, repaint = tiny_task(), paints_next(tiny_repaint())
    task.prepare_distributed()
    before = {name: value.clone() for name, value in state_of(task, repaint).items()}
    optimizer = torch.optim.SGD(task.parameters(), lr=0.05)
    batch, target = tiny_batch(8)
    states = [before]
    for number in range(2):
        if rank == 1 and number == 0 and kind == 'generator':
            overflow_once(repaint)
        images, wanted = repaint(half_of(batch, rank), half_of(target, rank))
        loss = task(images, wanted)['loss']
        if rank == 1 and number == 0 and kind == 'task':
            images.register_hook(lambda gradient: gradient * float('nan'))
        loss.backward()
        metrics = repaint.step()
        optimizer.step()
        optimizer.zero_grad()
        paints_next(repaint)
        states.append({name: value.clone() for name, value in state_of(task, repaint).items()})
        if number == 0:
            spoilt = not bool(metrics.g_gan.isfinite())
    return states, spoilt


@pytest.mark.parametrize(('kind', 'skipped'), [('generator', [1, 1, 0]), ('task', [0, 0, 1])])
def test_what_is_not_finite_in_one_process_skips_the_update_in_both_and_counts_once_in_each(tmp_path, kind, skipped):
    ((start, bad, good), spoilt_here), ((_, other_bad, other_good), spoilt_there) = results_of_two(
        tmp_path, overflow_in_the_second, kind
    )
    assert (spoilt_here, spoilt_there) == (False, kind == 'generator')
    assert bad['skipped'].tolist() == other_bad['skipped'].tolist() == good['skipped'].tolist() == skipped
    weights = {name for name in start if name.startswith('repainter') and 'norm.' not in name}
    weights |= {name for name in start if name.startswith('moments of generator')}
    assert weights & differ(start, bad) == weights & differ(start, other_bad) == set()
    moved = {name for name in differ(start, bad) if name.startswith('discriminator')}
    assert any(name.endswith('original') for name in moved) == (kind == 'task')  # D learns on, where it may
    assert 'moments of generator 0' in differ(bad, good)
    for one, other in ((bad, other_bad), (good, other_good)):
        apart = differ(one, other)
        assert apart - own_statistics(apart) - {name for name in apart if 'running' in name} == set()
        assert all(value.isfinite().all() for state in (one, other) for value in state.values())


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
    drawn, draw, run_epoch = [], label_maps.draw_normal, run_module.run_epoch

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
        if run.args.repaint:  # G's running statistics, which only evaluation uses, are each process's own
            repaint = run.repaint
            state |= {f'generator {name}': value.detach() for name, value in repaint.repainter.named_parameters()}
            state |= {f'discriminator {key}': value for key, value in repaint.discriminator.state_dict().items()}
            state |= {f'moments of {name}': tensor.clone() for name, tensor in named_moments(repaint)}
        torch.save((state, drawn[:1]), folder / f'epoch-{epoch}-process-{rank}.pt')
        return result

    with (
        patch.object(run_module, 'run_epoch', run_and_note),
        patch.object(label_maps, 'draw_normal', draw_and_note),
    ):
        call_main(main, *args)


OPTIONS = ('--train-num-samples', 96, '--epochs', 3, '--repaint-epochs', 2)
VARIANTS = {
    'accumulation and average': ('-b', 4, '--grad-accum-steps', 2, '--model-ema', '--model-ema-decay', 0.5),
    'statistics of the first process': ('--dist-bn', 'broadcast', '--no-ddp-bb'),
    'batches apart': ('--repaint-separate-batches', '--repaint-mix', 'both', '--cutmix', 1.0),
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
