"""bench.count_ops: what a step launches, and for what it makes the host wait."""

import pytest
import torch

from bench.count_ops import OperatorCounter, build_parser, count, table
from timm_repaint.losses import kl_divergence


def test_operators_views_bytes_and_waits_of_a_few_lines():
    x = torch.ones(4, 5)
    with OperatorCounter() as counter:
        y = x.t() + 1  # a view, then reads and writes 20 float32 values
        assert y.sum() > 0  # a sum, a comparison, and the host reads its result
        y[y > 0]  # a comparison, and the host waits for the number of values
    assert counter.counts['views'] == 1
    assert counter.counts['operators'] == 6
    assert counter.counts['waits'] == 2
    assert counter.names == {'add': 1, 'sum': 1, 'gt': 2, '_local_scalar_dense': 1, 'index': 1}
    assert sum(n for place, n in counter.places.items() if 'test_count_ops.py' in place) == 2
    read_and_written = 4 * (40 + 21 + 1 + 20 + 40) + (1 + 1) + 20 + 20  # float32, then bool
    assert counter.counts['bytes'] == read_and_written


def test_an_operator_of_the_backward_pass_belongs_to_the_part_of_its_forward_pass():
    mu, logvar = torch.ones(2, 3, requires_grad=True), torch.zeros(2, 3, requires_grad=True)
    with OperatorCounter() as counter:
        (2 * kl_divergence(mu, logvar)).backward()
    assert set(counter.parts) == {'losses', 'losses, backward', 'other', 'other, backward'}
    assert counter.parts['losses, backward'] > 3


@pytest.fixture(scope='module')
def counted():
    return count(build_parser().parse_args(['--model', 'test_resnet', '--batch', '4']))


def test_no_step_makes_the_host_wait(counted):
    assert counted['plain']['waits'] == counted['repaint']['waits'] == 0
    assert counted['repaint']['custom'] == 0


def test_what_repaint_adds_stays_what_it_was(counted):
    """Whoever makes a step dearer says so here; docs/decisions.md has the figures of `resnet50`."""
    assert counted['added']['operators'] <= 435


def test_the_table_names_the_parts(counted):
    lines = table(counted, where=True).splitlines()
    assert lines[1].split()[0] == 'operators'
    assert {'conditions', 'spectral norm', 'meters'} <= {line[:40].strip() for line in lines}
