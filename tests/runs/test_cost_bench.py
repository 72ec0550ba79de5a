"""Where cost comes from: sizes of networks, shares of time, growth."""

import pytest
import torch
from torch import nn

from bench.cost.count import _multiply_adds, count_networks
from bench.cost.plot import draw_shares
from bench.cost.stopwatch import PARTS, time_parts
from bench.cost.tables import growth_table, make_tables
from tests.helpers import without_padding
from tests.runs.test_benchmark import CASE, TINY, figures
from timm_repaint.benchmark.cases import Case
from timm_repaint.benchmark.measure import Arm, Batches


def test_multiply_adds_of_a_convolution_and_a_linear_layer():
    assert _multiply_adds(nn.Conv2d(3, 8, 3, padding=1), (torch.zeros(1, 3, 10, 20),)) == 3 * 8 * 9 * 200
    assert _multiply_adds(nn.Linear(5, 7), (torch.zeros(1, 5),)) == 35


def test_networks_are_counted_by_their_own_parameters():
    arm = Arm(CASE, True)
    counts = count_networks(arm)
    repaint = arm.run.repaint
    networks = {
        'E': repaint.repainter.encoder,
        'G': repaint.repainter.generator,
        'D': repaint.discriminator,
        'T': arm.run.task.get_trainable_module(),
    }
    assert {name: size['parameters'] for name, size in counts.items()} == {
        name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()
    }
    assert all(size['multiply_adds'] > 0 for size in counts.values())
    assert repaint.repainter.training and repaint.discriminator.training


def test_a_painter_without_a_network_counts_the_task_alone():
    arm = Arm(Case('test_resnet', 32, 4, options=(*TINY, '--repaint-generator', 'jitter')), True)
    assert list(count_networks(arm)) == ['T']


def test_time_is_shared_out_between_the_parts_and_the_hooks_go_away():
    arm = Arm(CASE, True)
    arm.train()
    repaint = arm.run.repaint
    parts = (arm.run.task, repaint.repainter, repaint.discriminator)
    before = [len(part._forward_hooks) for part in parts]
    shares = time_parts(arm)
    assert list(shares) == list(PARTS) and sum(shares.values()) == pytest.approx(1)
    assert all(shares[part] > 0 for part in PARTS if part != 'S') and shares['S'] == 0
    assert [len(part._forward_hooks) for part in parts] == before
    assert isinstance(arm.run.loaders.train, Batches)


class SlowBackward(torch.autograd.Function):
    """Passes values and gradients on, the latter after some work."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        for _ in range(1000):  # more than a busy machine takes from the other parts
            torch.ones(256, 256) @ torch.ones(256, 256)
        return gradient


@pytest.mark.parametrize(('part', 'others'), [('D', ('E+G', 'T', 'rest')), ('E+G', ('D', 'T', 'rest'))])
def test_a_slow_backward_pass_is_its_networks_time(part, others):
    arm = Arm(CASE, True)
    arm.train()
    before = time_parts(arm)
    repaint = arm.run.repaint
    layer = repaint.discriminator.scales[0].layers[1] if part == 'D' else repaint.repainter.generator.stages[1][0]
    layer.register_forward_pre_hook(lambda module, inputs: (SlowBackward.apply(inputs[0]), *inputs[1:]))
    after = time_parts(arm)
    assert after[part] > before[part] + 0.1
    assert all(after[other] < before[other] for other in others)


def test_growth_is_shown_a_million_pixels_and_sorted_by_size():
    table = growth_table([figures(size=200, batch=8), figures(size=100, batch=8, added=(0.04, 30.0))])
    assert without_padding(table).splitlines()[2:] == [
        '| a | 100 | 8 | 0.040 | 0.500 | 0.500 | 5.571 | 30 | 375 |',
        '| a | 200 | 8 | 0.200 | 0.625 | 0.625 | 1.607 | 100 | 312 |',
    ]


def test_growth_is_left_out_where_there_is_one_size():
    assert 'added' not in make_tables([figures(), figures(variant='prob-1')])
    assert 'added' in make_tables([figures(), figures(batch=4)])


def test_the_plot_is_a_picture(tmp_path):
    draw_shares([figures(), figures('b')], tmp_path / 'shares.png')
    assert (tmp_path / 'shares.png').read_bytes().startswith(b'\x89PNG')
