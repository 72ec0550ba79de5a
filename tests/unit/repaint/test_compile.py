"""What can be compiled: E+G's and D's losses in one piece each, and nothing anew after the schedule's first round."""

import copy

import pytest
import torch
import torch._functorch.config
from torch._dynamo.testing import CompileCounterWithBackend

from tests.tiny import learn, tiny_batch, tiny_classifier, tiny_repaint
from timm_repaint.frozen import learning
from timm_repaint.judging import Painted, d_loss, generator_losses, judge, weighted_sum
from timm_repaint.networks.label_maps import find_shapes


@pytest.fixture
def repaint():
    torch.manual_seed(0)
    torch.compiler.reset()
    with torch._functorch.config.patch(donated_buffer=False):  # as Repaint.compile has it
        yield tiny_repaint()
    torch.compiler.reset()


def painted_by(repaint, image_pm1, labels):
    repaint_pm1, posterior, shapes = repaint.repainter(image_pm1, labels)
    return Painted(image_pm1, shapes, repaint_pm1, posterior, repaint_pm1, len(image_pm1), None, {})


def loss_of_generator(repaint, image_pm1, labels):
    painted = painted_by(repaint, image_pm1, labels)
    judged = judge(repaint.discriminator, painted, None, learns=True)
    return weighted_sum(generator_losses(judged, painted.posterior, 'hinge'), repaint.config)


def loss_of_discriminator(repaint, image_pm1, labels):
    painted = Painted(image_pm1, find_shapes(labels), -image_pm1, None, image_pm1, len(image_pm1), None, {})
    return d_loss(judge(repaint.discriminator, painted, None, learns=True), 'hinge')


@pytest.mark.parametrize('loss_of', [loss_of_generator, loss_of_discriminator])
def test_forward_loss_and_backward_are_one_graph_with_the_same_gradients(repaint, loss_of):
    twin = copy.deepcopy(repaint.double())
    image_pm1, labels = torch.rand(2, 3, 32, 32).double() * 2 - 1, torch.randint(0, 5, (2, 32, 32))
    for each, call in ((repaint, torch.compile(loss_of, backend='aot_eager', fullgraph=True)), (twin, loss_of)):
        torch.manual_seed(1)
        with learning(each):
            call(each, image_pm1, labels).backward()
    for (name, ours), theirs in zip(repaint.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(
            ours.grad, theirs.grad, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f'{name}: {text}'
        )
    torch.testing.assert_close(dict(repaint.named_buffers()), dict(twin.named_buffers()))


@pytest.mark.parametrize(
    ('mode', 'wanted'), [(None, None), ('reduce-overhead', 'default'), ('max-autotune', 'max-autotune-no-cudagraphs')]
)
def test_its_networks_have_no_cuda_graphs(repaint, monkeypatch, mode, wanted):
    asked = []
    monkeypatch.setattr('torch.nn.Module.compile', lambda module, **options: asked.append(options))
    repaint.compile(backend='inductor', mode=mode)
    assert asked == [{'backend': 'inductor', 'mode': wanted}] * 2


def test_nothing_is_compiled_anew_after_the_first_round_of_the_schedule(repaint):
    counter, model, counts = CompileCounterWithBackend('aot_eager'), tiny_classifier(), []
    repaint.compile(backend=counter)
    for seed in range(6):
        learn(repaint, model, *tiny_batch(seed=seed))
        counts.append(counter.frame_count)
    assert 3 <= counts[2] <= 6 and counts[2:] == [counts[2]] * 4
