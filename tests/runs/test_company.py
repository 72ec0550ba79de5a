"""`Repaint` among other people's wrappers, optimizers, averages and precision: they leave E, G and D alone."""

import copy
import logging
import math

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn

from tests.helpers import same_tensors
from tests.tiny import (
    adam_steps,
    changed,
    learn,
    overflow_once,
    paints_next,
    snapshot,
    tiny_batch,
    tiny_classifier,
    tiny_repaint,
)

pytestmark = pytest.mark.usefixtures('seeded')


class Labelled(nn.Module):
    """`nn.Sequential(repaint, model)` for batches that hold their label maps."""

    def __init__(self, **options):
        super().__init__()
        self.network = nn.Sequential(tiny_repaint(**options), tiny_classifier())

    def forward(self, batch):
        return self.network(batch)

    @property
    def repaint(self):
        return self.network[0]


def weights(repaint):
    return snapshot(repaint.repainter) | {f'D {k}': v for k, v in snapshot(repaint.discriminator).items()}


def one_loop(network, repaint, optimizer, batches=3, after_backward=lambda: None):
    for seed in range(batches):
        batch, target = tiny_batch(seed=seed)
        nn.functional.cross_entropy(network(batch), target).backward()
        repaint.step()
        after_backward()
        optimizer.step()
        optimizer.zero_grad()


def test_in_a_sequential_the_generator_is_ahead_of_the_network():
    network = Labelled()
    batch, _ = tiny_batch(8)
    seen = []
    network.network[1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(batch)
    assert (seen[0][:4] - batch[:4, :3]).abs().max() > 0.1 and torch.equal(seen[0][4:], batch[4:, :3])
    assert torch.equal(network.eval()(batch), network.network[1](batch[:, :3]))


def test_outside_its_calls_no_parameter_requires_a_gradient_or_has_one():
    repaint, model = paints_next(tiny_repaint()), tiny_classifier()

    def untouched():
        return all(p.grad is None and not p.requires_grad for p in repaint.parameters())

    assert untouched()
    batch, target = tiny_batch()
    seen = repaint(batch)
    assert untouched()
    nn.functional.cross_entropy(model(seen), target).backward()
    assert untouched()
    repaint.step(update=False)
    assert untouched()
    learn(repaint, model, *tiny_batch())
    assert untouched() and adam_steps(repaint) == (1, 1)


def test_the_users_optimizer_with_weight_decay_moves_the_network_alone():
    network = Labelled()
    twin = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.5)
    own = torch.optim.AdamW(twin.network[1].parameters(), lr=0.1, weight_decay=0.5)
    for each, its in ((network, optimizer), (twin, own)):
        torch.manual_seed(3)
        one_loop(each, each.repaint, its)
    assert changed(network, snapshot(twin)) == set()


def test_clipping_all_parameters_sees_the_networks_gradients_alone():
    network = Labelled()
    norms = []

    def clip():
        own = torch.nn.utils.get_total_norm([p.grad for p in network.network[1].parameters()])
        norms.append((nn.utils.clip_grad_norm_(network.parameters(), 0.01), own))

    one_loop(network, network.repaint, torch.optim.SGD(network.parameters(), lr=0.1), after_backward=clip)
    assert all(torch.equal(*pair) and pair[0] > 0 for pair in norms)
    assert adam_steps(network.repaint) == (3, 1)


@pytest.mark.parametrize('kind', ['timm', 'torch'])
def test_a_weight_average_of_the_whole_changes_nothing_and_can_be_saved(kind):
    network = Labelled()
    twin = copy.deepcopy(network)
    average = ModelEmaV3(network, decay=0.5) if kind == 'timm' else torch.optim.swa_utils.AveragedModel(network)
    update = average.update if kind == 'timm' else average.update_parameters
    for each in (network, twin):
        torch.manual_seed(3)
        optimizer = torch.optim.SGD(each.parameters(), lr=0.1)
        for _ in range(3):
            one_loop(each, each.repaint, optimizer, batches=1)
            if each is network:
                update(network)
    assert changed(network, snapshot(twin)) == set()
    assert same_tensors(dict(network.repaint.state_dict()), dict(twin.repaint.state_dict()))
    assert average.module.repaint._painted is None
    copy.deepcopy(average)
    average.module.eval()(tiny_batch()[0])


def test_a_copy_made_between_forward_and_step_begins_without_a_batch():
    network = Labelled()
    network(tiny_batch()[0])
    twin = copy.deepcopy(network)
    twin(tiny_batch()[0])  # no step is due


def test_a_copy_can_be_made_while_a_count_is_on_its_way_from_a_device():
    repaint = tiny_repaint()
    learn(repaint, tiny_classifier(), *tiny_batch())
    for optimizer in repaint.optimizers.values():
        optimizer.guard._late._arrival = torch.Event('cpu')  # as on a GPU
    twin = copy.deepcopy(repaint)
    learn(twin, tiny_classifier(), *tiny_batch())


def test_a_step_that_fails_leaves_no_gradient_behind(monkeypatch):
    repaint, model = tiny_repaint(), tiny_classifier()
    seen = repaint(tiny_batch()[0])
    backward = torch.Tensor.backward

    def full(*args, **kwargs):
        backward(*args, **kwargs)
        raise torch.OutOfMemoryError

    with monkeypatch.context() as broken, pytest.raises(torch.OutOfMemoryError):
        broken.setattr(torch.Tensor, 'backward', full)
        repaint.step()
    assert all(p.grad is None and not p.requires_grad for p in repaint.parameters()) and len(seen) == 4
    learn(repaint, model, *tiny_batch())


def test_loading_forgets_the_update_that_has_begun():
    repaint, model = tiny_repaint(), tiny_classifier()
    state = copy.deepcopy(repaint.state_dict())
    twin = copy.deepcopy(repaint)
    learn(repaint, model, *tiny_batch(), update=False)
    repaint(tiny_batch()[0])
    repaint.load_state_dict(state)
    for each in (repaint, twin):
        torch.manual_seed(4)
        learn(each, model, *tiny_batch(seed=3))
    assert changed(repaint, snapshot(twin)) == set()


def test_loading_by_assignment_is_refused():
    repaint = tiny_repaint()
    with pytest.raises(ValueError, match='assign=True would part the weights from their optimizers'):
        repaint.load_state_dict(repaint.state_dict(), assign=True)


def test_a_state_of_another_discriminator_is_refused_by_name():
    with pytest.raises(ValueError, match=r'layers of D \(by img_size\) is 3, here 4'):
        tiny_repaint(img_size=64).load_state_dict(tiny_repaint(img_size=32).state_dict())


def test_a_copy_learns_by_itself():
    repaint, model = paints_next(tiny_repaint()), tiny_classifier()
    learn(repaint, model, *tiny_batch())
    twin, before = copy.deepcopy(repaint), weights(repaint)
    learn(paints_next(twin), model, *tiny_batch(seed=1))
    assert changed(repaint.repainter, before) == set() and adam_steps(twin) == (2, 2)


def test_half_precision_for_the_whole_is_for_the_network_alone():
    network = Labelled().bfloat16()
    repaint = paints_next(network.repaint)
    assert {p.dtype for p in repaint.parameters()} == {torch.float32}
    batch, target = tiny_batch()
    nn.functional.cross_entropy(network(batch.bfloat16()), target).backward()
    assert all(value.isfinite() for value in repaint.step().as_dict().values()) and adam_steps(repaint) == (1, 1)


def test_moments_follow_the_parameters_to_another_format():
    repaint = paints_next(tiny_repaint())
    learn(repaint, tiny_classifier(), *tiny_batch())
    repaint.double()
    learn(paints_next(repaint), tiny_classifier().double(), tiny_batch()[0].double(), tiny_batch()[1])
    assert {tensor.dtype for tensor in repaint.optimizers['generator'].tensors if tensor.ndim} == {torch.float64}
    assert adam_steps(repaint) == (2, 2)


# Autocast, scalers, compilers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_losses_are_computed_in_the_autocast_state_of_the_forward(dtype):
    losses = []
    for inside in (True, False):
        torch.manual_seed(0)
        repaint, model = paints_next(tiny_repaint()), tiny_classifier()
        batch, target = tiny_batch()
        with torch.autocast('cpu', dtype):
            loss = nn.functional.cross_entropy(model(repaint(batch)), target)
            if inside:
                loss.backward()
                losses.append(repaint.step().as_dict())
        if not inside:
            loss.backward()
            losses.append(repaint.step().as_dict())
    assert same_tensors(*losses)


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_under_autocast_the_losses_are_those_of_float32_within_rounding(dtype, tolerance):
    traces = []
    for enabled in (False, True):
        torch.manual_seed(0)
        repaint, model, trace = tiny_repaint(g_lr=1e-5, d_lr=1e-5), tiny_classifier(), []
        scaler = torch.amp.GradScaler('cpu', init_scale=64.0, enabled=enabled and dtype == torch.float16)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
        for seed in range(6):
            batch, target = tiny_batch(8, seed)
            with torch.autocast('cpu', dtype, enabled=enabled):
                loss = nn.functional.cross_entropy(model(repaint(batch)), target)
            scaler.scale(loss).backward()
            metrics = repaint.step(scale=scaler.get_scale())
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            trace.append([loss.item(), *(value.item() for value in metrics.as_dict().values())])
        scalers = [repaint.optimizers[name].scaler for name in ('discriminator', 'generator')]
        assert [own is not None for own in scalers] == [scaler.is_enabled()] * 2
        # An overflow at first is a scaler's business: it halves its scale instead of a step.
        overflows = [0 if own is None else round(math.log2(65536 / own.get_scale())) for own in scalers]
        assert sum(repaint.skipped.values()) == 0
        assert adam_steps(repaint) == (6 - overflows[0], 2 - overflows[1])
        traces.append(trace)
    for ours, theirs in zip(*traces, strict=True):
        assert ours == pytest.approx(theirs, rel=tolerance, abs=tolerance)


def test_an_outer_compile_leaves_it_out():
    network = Labelled()
    twin = copy.deepcopy(network)
    torch.compiler.reset()
    compiled = torch.compile(network, backend='eager')
    for each, call in ((network, compiled), (twin, twin)):
        torch.manual_seed(3)
        one_loop(call, each.repaint, torch.optim.SGD(each.parameters(), lr=0.1))
    assert changed(network, snapshot(twin)) == set()


@pytest.mark.slow
@pytest.mark.parametrize('backend', ['aot_eager', 'inductor'])
def test_compiled_by_itself_it_learns_as_before(backend):
    traces = []
    for compiles in (False, True):
        torch.manual_seed(0)
        torch.compiler.reset()
        repaint, model, trace = tiny_repaint(g_lr=1e-6, d_lr=1e-6), tiny_classifier(), []
        if compiles:
            repaint.compile(backend=backend)
        with torch._inductor.config.patch(fallback_random=True):
            for seed in range(3):
                metrics = learn(repaint, model, *tiny_batch(seed=seed))
                trace.append([value.item() for value in metrics.as_dict().values()])
        traces.append(trace)
    for ours, theirs in zip(*traces, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-3)


# What is not finite ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_a_task_gradient_that_is_not_finite_is_the_tasks_and_skips_the_generator(bad, caplog):
    repaint, model = paints_next(tiny_repaint()), tiny_classifier()
    batch, target = tiny_batch()
    before = snapshot(repaint.repainter)
    loss = nn.functional.cross_entropy(model(repaint(batch)), target)
    (loss * bad).backward()
    repaint.step()
    assert repaint.skipped == {'generator': 0, 'discriminator': 0, 'task': 1} and adam_steps(repaint) == (1, 0)
    moved = changed(repaint.repainter, before)
    assert not {name for name, _ in repaint.repainter.named_parameters()} & moved
    with caplog.at_level(logging.WARNING, logger='timm_repaint'):
        learn(paints_next(repaint), model, *tiny_batch())
    assert "The task's gradient is not finite: update skipped (1 so far)." in caplog.text


def test_a_repaint_that_is_not_finite_is_the_generators_and_the_network_sees_the_original():
    repaint, (batch, target) = paints_next(tiny_repaint()), tiny_batch()
    overflow_once(repaint)
    seen = repaint(batch)
    assert torch.allclose(seen, batch[:, :3], atol=1e-5)
    nn.functional.cross_entropy(tiny_classifier()(seen), target).backward()
    repaint.step()
    assert repaint.skipped == {'generator': 1, 'discriminator': 1, 'task': 0} and adam_steps(repaint) == (0, 0)
    assert all(buffer.isfinite().all() for buffer in repaint.repainter.buffers())


# Two processes --------------------------------------------------------------------------------------------------------


def test_moments_follow_the_parameters_to_another_layout_in_memory():
    repaint = paints_next(tiny_repaint())
    learn(repaint, tiny_classifier(), *tiny_batch())
    before = [tensor.clone() for tensor in repaint.optimizers['generator'].tensors]
    repaint.to(memory_format=torch.contiguous_format)
    optimizer = repaint.optimizers['generator']
    assert all(torch.equal(*pair) for pair in zip(before, optimizer.tensors, strict=True))
    for parameter in optimizer.parameters:
        assert optimizer.adam.state[parameter]['exp_avg'].stride() == parameter.stride()
