"""A Repaint in two processes: alike from the start, skipping together, each with its own batches."""

import pytest
import torch
from torch import nn

from tests.helpers import same_tensors
from tests.processes import start_two
from tests.runs.test_company import Labelled
from tests.tiny import (
    adam_steps,
    snapshot,
    tiny_batch,
    tiny_repaint,
)

pytestmark = pytest.mark.usefixtures('seeded')


def in_one_of_two(rank, address, folder, bad_rank):
    """Two processes with weights, batches and batch sizes of their own; one may have a loss that is nan."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=address, rank=rank, world_size=2)
    torch.manual_seed(rank)
    network = Labelled()
    network.repaint.updates = 0
    wrapped = nn.parallel.DistributedDataParallel(network)
    own = {id(p) for p in network.repaint.parameters()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.1)
    for step in range(6):
        batch, target = tiny_batch(4 + 2 * rank, seed=10 * rank + step)
        loss = nn.functional.cross_entropy(wrapped(batch), target)
        (loss * (float('nan') if step == 2 and rank == bad_rank else 1)).backward()
        network.repaint.step()
        if step != 2:
            optimizer.step()
        optimizer.zero_grad()
    repaint = network.repaint
    result = {
        'parameters': {name: p.detach() for name, p in network.named_parameters()},
        'steps': adam_steps(repaint),
        'skipped': repaint.skipped,
        'seen by the wrapper': any(id(p) in own for p in wrapped.parameters() if p.requires_grad),
    }
    torch.save(result, folder / f'{rank}.pt')
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize('bad_rank', [None, 1])
def test_around_the_whole_two_processes_begin_and_stay_alike_and_skip_together(tmp_path, bad_rank):
    start_two(in_one_of_two, f'file://{tmp_path}/rendezvous', tmp_path, bad_rank)
    first, second = (torch.load(tmp_path / f'{rank}.pt', weights_only=True) for rank in (0, 1))
    assert same_tensors(first['parameters'], second['parameters'])
    assert first['steps'] == second['steps'] == (6, 2 if bad_rank is None else 1)
    wanted = {'generator': 0, 'discriminator': 0, 'task': 0 if bad_rank is None else 1}
    assert first['skipped'] == second['skipped'] == wanted
    assert not first['seen by the wrapper']


def loss_trace(rank, network, call):
    """Losses of six steps on one process's own batches, with weights that hardly move."""
    trace = []
    for step in range(6):
        batch, target = tiny_batch(4 + 2 * rank, seed=10 * rank + step)
        torch.manual_seed(100 * rank + step)
        loss = nn.functional.cross_entropy(call(batch), target)
        loss.backward()
        metrics = network.repaint.step()
        trace.append([loss.item(), *(value.item() for value in metrics.as_dict().values())])
    return trace


def trace_of_one_of_two(rank, address, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=address, rank=rank, world_size=2)
    torch.manual_seed(0)
    network = Labelled(g_lr=1e-9, d_lr=1e-9)
    trace = loss_trace(rank, network, nn.parallel.DistributedDataParallel(network, broadcast_buffers=False))
    torch.save(trace, folder / f'{rank}.pt')
    torch.distributed.destroy_process_group()


def test_two_processes_with_unequal_batches_have_the_losses_of_each_alone(tmp_path):
    start_two(trace_of_one_of_two, f'file://{tmp_path}/rendezvous', tmp_path)
    for rank in (0, 1):
        torch.manual_seed(0)
        network = Labelled(g_lr=1e-9, d_lr=1e-9)
        alone, together = loss_trace(rank, network, network), torch.load(tmp_path / f'{rank}.pt')
        assert [len(losses) for losses in alone] == [2, 2, 6] * 2
        for ours, theirs in zip(together, alone, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)


def weights_at_first_use(rank, address, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=address, rank=rank, world_size=2)
    torch.manual_seed(rank)
    repaint = tiny_repaint()
    repaint.updates = 3 * (1 - rank)
    before = snapshot(repaint)
    repaint(tiny_batch()[0])
    torch.save((before, snapshot(repaint), repaint.updates), folder / f'{rank}.pt')
    torch.distributed.destroy_process_group()


def test_at_first_use_all_processes_get_the_weights_and_the_place_of_the_first(tmp_path):
    start_two(weights_at_first_use, f'file://{tmp_path}/rendezvous', tmp_path)
    (first, sent, updates), (second, got, place) = (
        torch.load(tmp_path / f'{rank}.pt', weights_only=True) for rank in (0, 1)
    )
    assert not same_tensors(first, second)
    assert same_tensors(first, sent) and same_tensors(got, sent) and updates == place == 3
