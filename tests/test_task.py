import copy

import pytest
import torch
from timm.data import Mixup
from timm.task import ClassificationTask, LogitDistillationTask
from torch import nn

from tests.tiny import (
    NUM_CLASSES,
    changed,
    generator_losses,
    loop_args,
    snapshot,
    tiny_batch,
    tiny_classifier,
    tiny_task,
)
from timm_repaint.engine.repaint import build_after_repaint
from timm_repaint.engine.repaint_loop import repaint_one_epoch
from timm_repaint.frozen import frozen
from timm_repaint.task import count_hits

CPU = torch.device('cpu')


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


class Spy:
    """An `after_repaint` that changes nothing and notes what T is given."""

    def __init__(self):
        self.calls = []

    def __call__(self, image_norm, target):
        self.calls.append((image_norm.detach().clone(), target.clone()))
        return image_norm, target


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
    assert tiny_task(prob=prob).num_repaints(batch_size) == wanted


def test_replace_gives_the_task_repaints_first_and_then_the_other_originals():
    spy = Spy()
    task = tiny_task(after_repaint=spy, prob=0.5, mix='replace')
    batch, target = tiny_batch(8)
    task(batch, target)
    ((seen, seen_target),) = spy.calls
    assert torch.equal(seen[4:], batch[4:, :3]) and torch.equal(seen_target, target)
    assert (seen[:4] - batch[:4, :3]).abs().mean(dim=(1, 2, 3)).min() > 0.1
    assert task.to_pm1(seen[:4]).abs().max() <= 1 + 1e-5


def test_both_gives_the_task_repaints_and_all_originals_with_their_targets():
    spy = Spy()
    batch, target = tiny_batch(8)
    losses = tiny_task(after_repaint=spy, prob=0.25, mix='both')(batch, target)
    ((seen, seen_target),) = spy.calls
    assert torch.equal(seen[2:], batch[:, :3])
    assert torch.equal(seen_target, torch.cat([target[:2], target]))
    assert (losses['hits_repaint'][1], losses['hits_original'][1]) == (2, 8)


def test_prob_1_repaints_the_whole_batch():
    spy = Spy()
    batch, target = tiny_batch(4)
    losses = tiny_task(after_repaint=spy, prob=1.0)(batch, target)
    ((seen, seen_target),) = spy.calls
    assert (seen - batch[:, :3]).abs().mean(dim=(1, 2, 3)).min() > 0.1 and torch.equal(seen_target, target)
    assert (losses['hits_repaint'][1], losses['hits_original'][1]) == (4, 0)


def test_the_generator_update_shows_the_task_its_repaints_only():
    spy = Spy()
    batch, target = tiny_batch(8)
    generator_losses(tiny_task(after_repaint=spy, prob=0.5, mix='both'), batch, target)
    ((seen, seen_target),) = spy.calls
    assert torch.equal(seen_target, target[:4]) and (seen - batch[:4, :3]).abs().mean() > 0.1


def test_pixels_go_to_pm1_and_back():
    task = tiny_task()
    black = task.to_pm1(torch.tensor([-0.5 / 0.2, -0.4 / 0.25, -0.3 / 0.3]).view(1, 3, 1, 1))
    white = task.to_pm1(torch.tensor([0.5 / 0.2, 0.6 / 0.25, 0.7 / 0.3]).view(1, 3, 1, 1))
    torch.testing.assert_close(black, torch.full((1, 3, 1, 1), -1.0))
    torch.testing.assert_close(white, torch.full((1, 3, 1, 1), 1.0))
    image_norm = tiny_batch()[0][:, :3]
    torch.testing.assert_close(task.to_norm(task.to_pm1(image_norm), torch.float32), image_norm)
    half = task.to_pm1(image_norm.bfloat16())
    assert half.dtype == torch.float32 and task.to_norm(half, torch.bfloat16).dtype == torch.bfloat16


def test_mixup_comes_before_random_erasing_and_both_act_on_repaints():
    mixup = Mixup(mixup_alpha=1.0, num_classes=NUM_CLASSES, label_smoothing=0.0)
    args = loop_args(reprob=1.0, no_aug=False, remode='const', recount=1, resplit=False)
    after_repaint = build_after_repaint(args, mixup, CPU)
    batch, target = tiny_batch(8)
    image_norm = batch[:, :3].clone() + 5  # no pixel is 0 by itself
    seen, soft = after_repaint(image_norm.clone(), target)
    erased = (seen == 0).all(dim=1)
    # Had MixUp come second, it would have blended the erased areas with the partner's pixels.
    assert erased.flatten(1).any(dim=1).all()
    own = nn.functional.one_hot(target, NUM_CLASSES).float()
    other = own.flip(0)
    share = ((soft - other).abs().sum() / (own - other).abs().sum()).item()
    torch.testing.assert_close(soft, share * own + (1 - share) * other)
    mixed = share * image_norm + (1 - share) * image_norm.flip(0)
    kept = ~erased[:, None].expand_as(seen)
    torch.testing.assert_close(seen[kept], mixed[kept])

    soft_task = ClassificationTask(tiny_classifier(), criterion_kwargs={'soft_targets': True}, verbose=False)
    spy = Spy()

    def noted(image_norm, target):
        return spy(*after_repaint(image_norm, target))

    tiny_task(soft_task, noted, prob=0.5)(batch, target)
    ((given, given_target),) = spy.calls
    assert (given == 0).all(dim=1).flatten(1).any(dim=1).all() and given_target.shape == (8, NUM_CLASSES)


def test_without_erasing_and_mixup_nothing_happens_after_the_repaint():
    args = loop_args(reprob=0.0, no_aug=False, remode='const', recount=1, resplit=False)
    batch, target = tiny_batch()
    seen, same_target = build_after_repaint(args, None, CPU)(batch[:, :3], target)
    assert torch.equal(seen, batch[:, :3]) and same_target is target


def test_no_aug_switches_random_erasing_off():
    args = loop_args(reprob=1.0, no_aug=True, remode='const', recount=1, resplit=False)
    batch, target = tiny_batch()
    assert torch.equal(build_after_repaint(args, None, CPU)(batch[:, :3], target)[0], batch[:, :3])


# Hits ----------------------------------------------------------------------------------------------------------------


def test_hits_are_counted_by_the_largest_logit():
    output = torch.tensor([[0.1, 0.9], [2.0, 1.0], [0.0, 3.0]])
    hits, count = count_hits(output, torch.tensor([1, 1, 1]))
    assert (hits.item(), count) == (2.0, 3)


def test_outputs_that_are_no_logits_count_no_image():
    assert count_hits(torch.zeros(2, 3, 4), torch.tensor([0, 1])) == (torch.tensor(0.0), 0)


class Always(nn.Module):
    """Says the same class for every image; its scale is a parameter so that it can be trained."""

    def __init__(self, label):
        super().__init__()
        self.label, self.scale = label, nn.Parameter(torch.ones(1))

    def forward(self, image_norm):
        logits = torch.zeros(len(image_norm), NUM_CLASSES)
        logits[:, self.label] = 1.0
        return logits * self.scale


@pytest.mark.parametrize('split_bn', [False, True])
def test_hits_on_repaints_and_on_originals_are_kept_apart(split_bn):
    task = tiny_task(ClassificationTask(Always(2), verbose=False), prob=0.5, split_bn=split_bn)
    losses = task(tiny_batch(8)[0], torch.tensor([2, 2, 2, 0, 2, 1, 0, 3]))
    assert (losses['hits_repaint'][0].item(), losses['hits_repaint'][1]) == (3.0, 4)
    assert (losses['hits_original'][0].item(), losses['hits_original'][1]) == (1.0, 4)


# Batch norms of their own ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize('mix', ['replace', 'both'])
def test_split_bn_takes_running_statistics_from_originals_alone(mix):
    task = tiny_task(prob=0.5, mix=mix, split_bn=True)
    twin = copy.deepcopy(task.task)
    batch, target = tiny_batch(8)
    originals = batch[4:, :3] if mix == 'replace' else batch[:, :3]
    result = task(batch, target)
    with torch.no_grad():
        twin(originals, target[-len(originals) :])
    assert changed(task.task, twin.state_dict()) == set()
    result['loss'].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.task.parameters())


def test_without_split_bn_repaints_move_the_running_statistics_too():
    task = tiny_task(prob=0.5)
    twin = copy.deepcopy(task.task)
    batch, target = tiny_batch(8)
    task(batch, target)
    twin(batch[4:, :3], target[4:])
    assert changed(task.task, twin.state_dict())


def test_split_bn_weighs_both_losses_by_images():
    # 'both' at prob 1/4 of 8 images: 2 repaints and 8 originals of a classifier that always says class 0.
    task = tiny_task(ClassificationTask(Always(0), verbose=False), prob=0.25, mix='both', split_bn=True)
    target = torch.tensor([0, 0, 1, 1, 1, 1, 1, 1])
    right = -torch.log_softmax(torch.tensor([1.0, 0, 0, 0]), 0)
    wanted = (2 * right[0] + (2 * right[0] + 6 * right[1])) / 10
    assert task(tiny_batch(8)[0], target)['loss'].item() == pytest.approx(wanted.item(), rel=1e-5)


# The losses of E and G ------------------------------------------------------------------------------------------------


def test_the_generators_loss_is_the_weighted_sum_of_its_parts():
    weights = {'task': 2.0, 'feat': 3.0, 'kl': 0.5, 'segment_kl': 0.25, 'rec': 7.0}
    task = tiny_task(**{f'{part}_weight': weight for part, weight in weights.items()})
    losses = generator_losses(task, *tiny_batch())
    wanted = losses['gan'] + sum(weight * losses[part] for part, weight in weights.items())
    torch.testing.assert_close(losses['loss'], wanted)
    assert set(losses) == {'loss', 'gan', *weights}
    assert all(losses[part] > 0 for part in weights)


def test_parts_that_are_switched_off_are_zero_and_the_task_is_not_asked():
    spy = Spy()
    losses = generator_losses(tiny_task(after_repaint=spy, task_weight=0.0, rec_weight=0.0), *tiny_batch())
    assert losses['task'] == losses['rec'] == 0 and spy.calls == []


def test_the_global_latent_has_no_segment_divergence():
    task = tiny_task()
    task.repainter = type(task.repainter)(latent='global', width=4)
    losses = generator_losses(task, *tiny_batch())
    assert losses['segment_kl'] == 0 and losses['kl'] > 0 and losses['loss'].isfinite()


def generator_gradients(task, task_weight, seed=3):
    """Gradients of E and G with the same random draws."""
    task.settings = type(task.settings)(task_weight=task_weight, feat_weight=0.0, kl_weight=0.0, segment_kl_weight=0.0)
    task.repainter.zero_grad()
    torch.manual_seed(seed)
    with frozen(task.task, task.discriminator):
        generator_losses(task, *tiny_batch())['loss'].backward()
    return {name: p.grad.clone() for name, p in task.repainter.named_parameters() if p.grad is not None}


def test_the_tasks_loss_reaches_encoder_and_generator_through_the_task():
    task = tiny_task()
    without, with_task = generator_gradients(task, 0.0), generator_gradients(task, 1.0)
    for part in ('encoder.segment_head.weight', 'encoder.global_head.weight', 'generator.head.to_rgb.weight'):
        difference = (without[part] - with_task[part]).abs().max()
        assert difference > 1e-2 * without[part].abs().max(), part


def test_a_task_that_ignores_the_image_adds_no_gradient():
    class Blind(Always):
        def forward(self, image_norm):
            return super().forward(image_norm) + 0 * image_norm.mean()

    task = tiny_task(ClassificationTask(Blind(1), verbose=False))
    without, with_task = generator_gradients(task, 0.0), generator_gradients(task, 1.0)
    assert without.keys() == with_task.keys()
    assert all(torch.equal(without[name], with_task[name]) for name in without)


def test_the_discriminator_is_asked_about_the_repainted_share_only():
    task = tiny_task(prob=0.5)
    shapes = []
    task.discriminator.register_forward_hook(lambda module, inputs, output: shapes.append(len(inputs[0])))
    task(*tiny_batch(8))
    generator_losses(task, *tiny_batch(8))
    assert shapes == [8, 4, 4]  # 4 originals and 4 repaints together; then originals, then repaints


# Distillation ---------------------------------------------------------------------------------------------------------


def test_distillation_works_inside_and_leaves_the_teacher_alone():
    teacher = tiny_classifier()
    inner = LogitDistillationTask(tiny_classifier(), teacher, distill_loss_weight=0.5, verbose=False)
    task = tiny_task(inner)
    before, students = snapshot(teacher), snapshot(inner.trainable_module)
    optimizer = torch.optim.SGD(inner.trainable_module.parameters(), lr=0.05)
    repaint_one_epoch(0, [tiny_batch(seed=seed) for seed in range(3)], optimizer, loop_args(), task, CPU)
    assert changed(teacher, before) == set() and not teacher.training
    assert changed(inner.trainable_module, students)
    assert task.get_checkpoint_state()['state_dict'].keys() == students.keys()
