"""E's, G's, D's and T's gradients beside autograd through all of them as one graph, in float64."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from timm.models import create_model

from tests.unit.repaint.reference import reference_gradients
from timm_repaint import Repaint

MEAN, STD = (0.5, 0.375, 0.25), (0.25, 0.1875, 0.3125)  # exact in float32, which the buffers begin in
WEIGHTS = {'task': 1.5, 'feat': 10.0, 'kl': 0.05, 'segment_kl': 1.0}


def build(mix='replace', separate=False):
    torch.manual_seed(0)
    options = {f'{name}_weight': value for name, value in WEIGHTS.items()}
    repaint = Repaint(
        MEAN, STD, masks=None, width=4, mix=mix, separate_batches=separate, schedule=(1, 1), **options
    ).double()
    model = create_model('test_resnet', num_classes=4, zero_init_last=False).double()
    repaint.updates = 1  # the second of two: E and G's
    return repaint, model


def make_batch(seed, size=6):
    draw = torch.Generator().manual_seed(seed)
    image01 = torch.rand(size, 3, 32, 32, generator=draw, dtype=torch.float64)
    images = (image01 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    labels = torch.randint(5, (size, 4, 4), generator=draw).repeat_interleave(8, 1).repeat_interleave(8, 2)
    return images, labels, torch.randint(4, (size,), generator=draw), seed + 100


def catch_gradients(repaint):
    """What Adam is given, by optimizer, at its next step."""
    caught = {}
    for name, optimizer in repaint.optimizers.items():

        def note(adam, *_, name=name):
            caught[name] = [p.grad.clone() for p in adam.param_groups[0]['params']]

        optimizer.adam.register_step_pre_hook(note)
    return caught


def close(first, second):
    largest = max(value.abs().max() for value in second)
    return all((a - b).abs().max() <= 1e-9 * max(1.0, largest) for a, b in zip(first, second, strict=True))


def mean_of(gradients):
    return [sum(values) / len(values) for values in zip(*gradients, strict=True)]


@pytest.mark.parametrize('mix', ['replace', 'both'])
@pytest.mark.parametrize('separate', [False, True])
@pytest.mark.parametrize(
    ('accumulation', 'loss_scale', 'reduction'), list(itertools.product((1, 3), (1.0, 8.0), ('mean', 'sum')))
)
def test_gradients_are_those_of_one_graph(mix, separate, accumulation, loss_scale, reduction):
    repaint, model = build(mix, separate)
    batches = [make_batch(seed) for seed in range(accumulation)]
    twins = [copy.deepcopy(part) for part in (repaint.repainter, repaint.discriminator, model)]
    for twin in twins:
        twin.requires_grad_(True)
    setup = {'mean': MEAN, 'std': STD, 'count': 2, 'mix': mix, 'separate': separate, 'weights': WEIGHTS}
    wanted = [reference_gradients(*twins, batch, setup) for batch in batches]

    caught = catch_gradients(repaint)
    for number, (images, labels, target, seed) in enumerate(batches):
        torch.manual_seed(seed)
        assert repaint.task_learns != separate
        seen, own_target = repaint(images, target, labels=labels)
        loss = F.cross_entropy(model(seen), own_target, reduction=reduction) * loss_scale / accumulation
        loss.backward()
        scale = loss_scale / accumulation * (len(seen) if reduction == 'sum' else 1)
        repaint.step(scale=scale, update=number == accumulation - 1)
    assert close(caught['generator'], mean_of([of_eg for of_eg, _, _ in wanted]))
    if separate:
        assert 'discriminator' not in caught
    else:
        assert close(caught['discriminator'], mean_of([of_d for _, of_d, _ in wanted]))
    factor = loss_scale * (len(seen) if reduction == 'sum' else 1)
    assert close([p.grad / factor for p in model.parameters()], mean_of([of_t for _, _, of_t in wanted]))


@pytest.mark.parametrize('kind', ['frozen in part', 'gradient checkpointing', 'a tensor as scale'])
def test_gradients_with_other_kinds_of_task(kind):
    repaint, model = build()
    if kind == 'frozen in part':
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(('layer4', 'fc')))
    if kind == 'gradient checkpointing':
        model.set_grad_checkpointing(True)
    batch = make_batch(0)
    twins = [copy.deepcopy(part) for part in (repaint.repainter, repaint.discriminator, model)]
    for twin in twins[:2]:
        twin.requires_grad_(True)
    setup = {'mean': MEAN, 'std': STD, 'count': 2, 'mix': 'replace', 'separate': False, 'weights': WEIGHTS}
    of_eg, of_d, _ = reference_gradients(*twins, batch, setup)
    caught = catch_gradients(repaint)
    images, labels, target, seed = batch
    torch.manual_seed(seed)
    (F.cross_entropy(model(repaint(images, labels=labels)), target) * 4).backward()
    repaint.step(scale=torch.tensor(4.0) if kind == 'a tensor as scale' else 4.0)
    assert close(caught['generator'], of_eg) and close(caught['discriminator'], of_d)


def test_the_reference_tells_a_wrong_scale():
    """The comparison above can fail: a loss that is scaled without a word is off."""
    repaint, model = build()
    batch = make_batch(0)
    twins = [copy.deepcopy(part) for part in (repaint.repainter, repaint.discriminator, model)]
    for twin in twins:
        twin.requires_grad_(True)
    setup = {'mean': MEAN, 'std': STD, 'count': 2, 'mix': 'replace', 'separate': False, 'weights': WEIGHTS}
    of_eg, _, _ = reference_gradients(*twins, batch, setup)
    caught = catch_gradients(repaint)
    images, labels, target, seed = batch
    torch.manual_seed(seed)
    (F.cross_entropy(model(repaint(images, labels=labels)), target) * 8).backward()
    repaint.step()
    assert not close(caught['generator'], of_eg)
