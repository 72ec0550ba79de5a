"""What a batch becomes: which images T sees, with which targets, and what E, G and D get of them."""

import copy

import pytest
import torch
from timm.data import Mixup
from timm.task import ClassificationTask, LogitDistillationTask
from torch import nn

from tests.tiny import (
    NUM_CLASSES,
    changed,
    learn,
    loop_args,
    paints_next,
    snapshot,
    tiny_batch,
    tiny_classifier,
    tiny_repaint,
)
from tests.unit.repaint.reference import reference_gradients
from tests.unit.repaint.test_gradients import MEAN as GRADIENT_MEAN
from tests.unit.repaint.test_gradients import STD as GRADIENT_STD
from tests.unit.repaint.test_gradients import WEIGHTS, build, catch_gradients, close, make_batch
from timm_repaint.batches import num_repaints
from timm_repaint.engine.loop import train_one_epoch
from timm_repaint.engine.repaint_phase import build_erasing
from timm_repaint.networks.label_maps import boundary_map

pytestmark = pytest.mark.usefixtures('seeded')

CPU = torch.device('cpu')


def distances(images, originals):
    """Mean distance of each image from its original, [B]."""
    return (images - originals).abs().mean(dim=(1, 2, 3))


# Which images T sees --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('prob', 'batch_size', 'wanted'),
    [
        (0.5, 8, 4),
        (0.5, 6, 2),  # 3 would leave MixUp an image without a partner
        (0.3, 8, 2),
        (0.9, 8, 6),  # 7.2 is rounded to 7, made even
        (1.0, 8, 8),
        (1.0, 7, 7),
        (0.5, 7, 4),
        (0.01, 8, 2),  # at least a pair
        (0.01, 1, 1),
    ],
)
def test_number_of_repaints(prob, batch_size, wanted):
    assert num_repaints(batch_size, prob) == wanted
    repaint, (batch, target) = tiny_repaint(prob=prob), tiny_batch(batch_size)
    seen, _ = repaint(batch, target)
    assert (distances(seen, batch[:, :3]) > 0.1).tolist() == [True] * wanted + [False] * (batch_size - wanted)


def test_replace_gives_the_task_repaints_first_and_then_the_other_originals():
    repaint, (batch, target) = tiny_repaint(prob=0.5), tiny_batch(8)
    seen, seen_target = repaint(batch, target)
    assert torch.equal(seen[4:], batch[4:, :3]) and torch.equal(seen_target, target)
    assert distances(seen[:4], batch[:4, :3]).min() > 0.1
    assert repaint.to_pm1(seen[:4]).abs().max() <= 1 + 1e-5
    assert repaint.split.tolist() == [True] * 4 + [False] * 4


def test_both_gives_the_task_repaints_and_all_originals_with_their_targets():
    repaint, (batch, target) = tiny_repaint(prob=0.25, mix='both'), tiny_batch(8)
    seen, seen_target = repaint(batch, target)
    assert torch.equal(seen[2:], batch[:, :3]) and distances(seen[:2], batch[:2, :3]).min() > 0.1
    assert torch.equal(seen_target, torch.cat([target[:2], target]))
    assert repaint.split.tolist() == [True] * 2 + [False] * 8


@pytest.mark.parametrize('mix', ['replace', 'both'])
def test_prob_1_repaints_the_whole_batch(mix):
    repaint, (batch, target) = tiny_repaint(prob=1.0, mix=mix), tiny_batch(4)
    seen, seen_target = repaint(batch, target)
    originals = 4 if mix == 'both' else 0
    assert distances(seen[:4], batch[:, :3]).min() > 0.1 and torch.equal(seen[4:], batch[:originals, :3])
    assert torch.equal(seen_target, torch.cat([target, target[:originals]]))
    assert repaint.split.tolist() == [True] * 4 + [False] * originals


@pytest.mark.parametrize('mix', ['replace', 'both'])
def test_a_separate_batch_of_the_generator_shows_the_task_its_repaints_only(mix):
    repaint, (batch, target) = tiny_repaint(prob=0.5, mix=mix, separate_batches=True), tiny_batch(8)
    assert repaint.task_learns and len(repaint(batch, target)[0]) == (12 if mix == 'both' else 8)
    repaint.drop()
    paints_next(repaint)
    seen, seen_target = repaint(batch, target)
    assert not repaint.task_learns and torch.equal(seen_target, target[:4])
    assert distances(seen, batch[:4, :3]).min() > 0.1 and repaint.split.tolist() == [True] * 4


def test_what_the_task_sees_does_not_depend_on_whether_the_generator_learns():
    repaint, (batch, target) = tiny_repaint(), tiny_batch(8)
    shown = []
    for each in (repaint, paints_next(copy.deepcopy(repaint))):
        torch.manual_seed(5)
        shown.append(each(batch, target)[0])
    assert torch.equal(*shown) and not shown[0].requires_grad and shown[1].requires_grad


def test_pixels_go_to_pm1_and_back():
    repaint = tiny_repaint()
    black = repaint.to_pm1(torch.tensor([-0.5 / 0.2, -0.4 / 0.25, -0.3 / 0.3]).view(1, 3, 1, 1))
    white = repaint.to_pm1(torch.tensor([0.5 / 0.2, 0.6 / 0.25, 0.7 / 0.3]).view(1, 3, 1, 1))
    torch.testing.assert_close(black, torch.full((1, 3, 1, 1), -1.0))
    torch.testing.assert_close(white, torch.full((1, 3, 1, 1), 1.0))
    image_norm = tiny_batch()[0][:, :3]
    torch.testing.assert_close(repaint.to_norm(repaint.to_pm1(image_norm), torch.float32), image_norm)
    half = repaint.to_pm1(image_norm.bfloat16())
    assert half.dtype == torch.float32 and repaint.to_norm(half, torch.bfloat16).dtype == torch.bfloat16


# Behind the repaint: MixUp, then erasing ------------------------------------------------------------------------------


class NotingTask(ClassificationTask):
    """T, which notes what it is given."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, verbose=False, **kwargs)
        self.calls = []

    def forward(self, images, target):
        self.calls.append((images.detach().clone(), target.clone()))
        return super().forward(images, target)


def run_epoch(task, repaint, batches, **kwargs):
    args = loop_args(**kwargs.pop('args', {}))
    optimizer = torch.optim.SGD(task.get_trainable_module().parameters(), lr=0.05)
    return train_one_epoch(0, task, batches, optimizer, args, task, CPU, repaint=repaint, **kwargs)


def erasing_options(**options):
    return loop_args(**{'reprob': 1.0, 'no_aug': False, 'remode': 'const', 'recount': 1, 'resplit': False, **options})


@pytest.mark.parametrize('mix', ['replace', 'both'])
def test_mixup_comes_before_random_erasing_and_both_act_on_repaints(mix):
    repaint, (batch, target) = tiny_repaint(prob=0.5, mix=mix), tiny_batch(8)
    outputs = []
    repaint.register_forward_hook(lambda module, inputs, output: outputs.append([part.clone() for part in output]))
    task = NotingTask(tiny_classifier(), criterion_kwargs={'soft_targets': True}).train()
    mixup = Mixup(mixup_alpha=1.0, num_classes=NUM_CLASSES, label_smoothing=0.0)
    erasing = build_erasing(erasing_options(), CPU)
    run_epoch(task, repaint, [(batch, target)], mixup_fn=mixup, erasing=erasing)
    ((image_norm, hard),), ((seen, soft),) = outputs, task.calls
    assert (image_norm != 0).all()  # no pixel is erased by itself
    erased = (seen == 0).all(dim=1)
    # Had MixUp come second, it would have blended the erased areas with the partner's pixels.
    assert erased.flatten(1).any(dim=1).all()
    own = nn.functional.one_hot(hard, NUM_CLASSES).float()
    other = own.flip(0)
    share = ((soft - other).abs().sum() / (own - other).abs().sum()).item()
    torch.testing.assert_close(soft, share * own + (1 - share) * other)
    mixed = share * image_norm + (1 - share) * image_norm.flip(0)
    kept = ~erased[:, None].expand_as(seen)
    torch.testing.assert_close(seen[kept], mixed[kept])


def test_without_erasing_and_mixup_nothing_happens_after_the_repaint():
    assert build_erasing(erasing_options(reprob=0.0), CPU) is None
    repaint, outputs = tiny_repaint(), []
    repaint.register_forward_hook(lambda module, inputs, output: outputs.append([part.clone() for part in output]))
    task = NotingTask(tiny_classifier()).train()
    run_epoch(task, repaint, [tiny_batch(8)])
    ((seen, seen_target),) = task.calls
    assert torch.equal(seen, outputs[0][0]) and torch.equal(seen_target, outputs[0][1])


def test_no_aug_switches_random_erasing_off():
    assert build_erasing(erasing_options(), CPU) is not None
    assert build_erasing(erasing_options(no_aug=True), CPU) is None


class Always(nn.Module):
    """Says the same class for every image; its scale is a parameter so that it can be trained."""

    def __init__(self, label):
        super().__init__()
        self.label, self.scale = label, nn.Parameter(torch.ones(1))

    def forward(self, image_norm):
        logits = torch.zeros(len(image_norm), NUM_CLASSES)
        logits[:, self.label] = 1.0
        return logits * self.scale + 0 * image_norm.mean()


# The losses of E and G ------------------------------------------------------------------------------------------------


def generator_loss_of(repaint, model, batch, target):
    """E+G's loss, which their optimizer is given, and the metrics of the step."""
    given, optimizer = [], repaint.optimizers['generator']
    add = optimizer.add

    def note(loss, **options):
        given.append(loss.detach())
        add(loss, **options)

    optimizer.add = note
    metrics = learn(paints_next(repaint), model, batch, target)
    return given[0], metrics


def test_the_generators_loss_is_the_weighted_sum_of_its_parts():
    weights = {'feat': 3.0, 'kl': 0.5, 'segment_kl': 0.25}
    options = {f'{part}_weight': weight for part, weight in weights.items()}
    repaint = tiny_repaint(task_weight=0.0, **options)
    loss, metrics = generator_loss_of(repaint, tiny_classifier(), *tiny_batch())
    wanted = metrics.g_gan + sum(weight * getattr(metrics, f'g_{part}') for part, weight in weights.items())
    torch.testing.assert_close(loss, wanted)
    assert all(getattr(metrics, f'g_{part}') > 0 for part in weights) and metrics.g_gan != 0
    assert set(metrics.as_dict()) == {'d_loss', 'g_gan', 'g_feat', 'g_kl', 'g_segment_kl'}


def test_without_the_tasks_weight_the_task_is_not_asked():
    repaint, (batch, target) = paints_next(tiny_repaint(task_weight=0.0)), tiny_batch()
    seen, target = repaint(batch, target)
    assert not seen.requires_grad
    metrics = repaint.step()  # without a backward pass of T's
    assert metrics.g_gan.isfinite() and int(repaint.optimizers['generator'].tensors[0]) == 1


def test_the_global_latent_has_no_segment_divergence():
    loss, metrics = generator_loss_of(tiny_repaint(latent='global'), tiny_classifier(), *tiny_batch())
    assert metrics.g_segment_kl is None and metrics.g_kl > 0 and loss.isfinite()


def generator_gradients(repaint, model, **weights):
    """What E and G's Adam is given, by name, with the same weights and random draws."""
    state, caught = repaint.state_dict(), {}
    others = {'feat_weight': 0.0, 'kl_weight': 0.0, 'segment_kl_weight': 0.0}
    twin = paints_next(tiny_repaint(**others, **weights))
    twin.load_state_dict(state)
    paints_next(twin)

    def note(*_):
        caught.update({name: p.grad.clone() for name, p in twin.repainter.named_parameters()})

    twin.optimizers['generator'].adam.register_step_pre_hook(note)
    torch.manual_seed(3)
    learn(twin, copy.deepcopy(model), *tiny_batch())
    return caught


def test_the_tasks_loss_reaches_encoder_and_generator_through_the_task():
    repaint, model = tiny_repaint(), tiny_classifier()
    without, with_task = (generator_gradients(repaint, model, task_weight=weight) for weight in (0.0, 1.0))
    for part in ('encoder.segment_head.weight', 'encoder.global_head.weight', 'generator.head.to_rgb.weight'):
        difference = (without[part] - with_task[part]).abs().max()
        assert difference > 1e-2 * without[part].abs().max(), part


def test_a_task_that_ignores_the_image_adds_no_gradient():
    repaint = tiny_repaint()
    without, with_task = (generator_gradients(repaint, Always(1), task_weight=weight) for weight in (0.0, 1.0))
    assert without.keys() == with_task.keys() and any(value.any() for value in without.values())
    assert all(torch.equal(without[name], with_task[name]) for name in without)


class OfNeighbours(nn.Module):
    """A network that sees every image half itself and half the next, as behind MixUp."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image_norm):
        return self.model(0.5 * (image_norm + image_norm.roll(1, 0)))


@pytest.mark.parametrize('mix', ['replace', 'both'])
def test_the_generator_gets_the_tasks_gradient_through_what_mixes_the_images(mix):
    repaint, model = build(mix)
    model = OfNeighbours(model)
    images, labels, target, seed = make_batch(0)
    twins = [copy.deepcopy(part).requires_grad_(True) for part in (repaint.repainter, repaint.discriminator, model)]
    setup = {'mean': GRADIENT_MEAN, 'std': GRADIENT_STD, 'count': 2, 'mix': mix, 'separate': False, 'weights': WEIGHTS}
    wanted, _, _ = reference_gradients(*twins, (images, labels, target, seed), setup)
    caught = catch_gradients(repaint)
    torch.manual_seed(seed)
    seen, own_target = repaint(images, target, labels=labels)
    nn.functional.cross_entropy(model(seen), own_target).backward()
    repaint.step()
    assert close(caught['generator'], wanted)


@pytest.mark.parametrize('separate', [False, True])
def test_the_discriminator_is_asked_once_a_batch_about_the_repainted_share_only(separate):
    repaint, model, shapes = tiny_repaint(separate_batches=separate, mix='both'), tiny_classifier(), []
    repaint.discriminator.register_forward_hook(lambda module, inputs, output: shapes.append(len(inputs[0])))
    for seed in range(3):
        assert repaint.task_learns or separate
        learn(repaint, model, *tiny_batch(8, seed))
    assert shapes == [8, 8, 8]  # 4 originals and 4 repaints together, in E and G's update too


def test_the_discriminator_compares_an_image_with_its_own_repaint_under_its_own_labels():
    repaint, (batch, target) = tiny_repaint(), tiny_batch(8)
    edges = torch.tensor([4, 10, 17, 25]).view(4, 1, 1)  # a column of its own in each map
    batch[:4, 3] = (torch.arange(32) < edges).float()
    given = []
    repaint.discriminator.register_forward_hook(lambda module, inputs, output: given.append(inputs))
    seen, _ = repaint(batch, target)
    repaint.step()
    ((images_pm1, conditions),) = given
    torch.testing.assert_close(images_pm1[:4], repaint.to_pm1(batch[:4, :3]))
    torch.testing.assert_close(images_pm1[4:], repaint.to_pm1(seen[:4]))
    assert torch.equal(conditions[:, -1:], boundary_map(batch[:4, 3].long()).float())  # the same for both


# Distillation ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('separate', [False, True])
def test_distillation_works_behind_it_and_leaves_the_teacher_alone(separate):
    teacher = tiny_classifier()
    task = LogitDistillationTask(tiny_classifier(), teacher, distill_loss_weight=0.5, verbose=False).train()
    before, students = snapshot(teacher), snapshot(task.trainable_module)
    repaint = tiny_repaint(separate_batches=separate)
    start = snapshot(repaint.repainter)
    means = run_epoch(task, repaint, [tiny_batch(seed=seed) for seed in range(3)])
    assert changed(teacher, before) == set() and not teacher.training
    assert changed(task.trainable_module, students) and changed(repaint.repainter, start)
    assert means['loss'] > 0 and means['g_gan'] == means['g_gan']
    assert task.get_checkpoint_state()['state_dict'].keys() == students.keys()
