"""What a call of Repaint takes, gives and refuses, batch by batch."""

import logging

import numpy as np
import pytest
import torch

from tests.tiny import MEAN, STD, changed, learn, paints_next, snapshot, tiny_batch, tiny_classifier, tiny_repaint
from timm_repaint import Repaint
from timm_repaint.errors import UsageError

pytestmark = pytest.mark.usefixtures('seeded')


def test_separate_batches_are_for_loops_that_ask():
    repaint, model, (batch, target) = tiny_repaint(separate_batches=True), tiny_classifier(), tiny_batch()
    for _ in range(2):
        learn(repaint, model, batch, target)
    with pytest.raises(RuntimeError, match=r'must not learn from this batch; ask repaint\.task_learns'):
        repaint(batch, target)
    assert not repaint.task_learns
    repaint(batch, target)


@pytest.mark.parametrize(
    ('options', 'wanted'),
    [
        ({}, [True] * 4 + [False] * 4),
        ({'mix': 'both'}, [True] * 4 + [False] * 8),
        ({'prob': 1.0}, [True] * 8),
    ],
)
def test_split_says_which_images_are_repaints(options, wanted):
    batch, target = tiny_batch(8)
    repaint = tiny_repaint(**options)
    repaint(batch, target)
    assert repaint.split.dtype == torch.bool and repaint.split.tolist() == wanted
    repaint.eval()(batch, target)
    assert repaint.split.tolist() == [False] * 8


def test_separate_batches_show_the_task_the_repaints_alone_and_say_so_beforehand():
    repaint, model, (batch, target) = tiny_repaint(separate_batches=True), tiny_classifier(), tiny_batch(8)
    learns = []
    for _ in range(6):
        learns.append(repaint.task_learns)
        seen, own = repaint(batch, target)
        assert len(seen) == len(own) == (8 if learns[-1] else 4) and torch.equal(own, target[: len(own)])
        assert bool(repaint.split.all()) != learns[-1]
        torch.nn.functional.cross_entropy(model(seen), own).backward()
        metrics = repaint.step().as_dict()
        assert ('d_loss' in metrics) == learns[-1] and ('g_gan' in metrics) != learns[-1]
    assert learns == [True, True, False] * 2


@pytest.mark.parametrize('mix', ['replace', 'both'])
def test_half_precision_images_of_another_type_than_autocasts_pass(mix):
    batch, target = tiny_batch(8)
    repaint = tiny_repaint(mix=mix)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        seen, _ = repaint(batch.half(), target)
    assert seen.dtype == torch.float16 and seen.isfinite().all()


@pytest.mark.parametrize('shape', [(3, 32, 32), (2, 3, 32, 32), (2, 12, 32, 32)])
def test_in_evaluation_a_fourth_channel_alone_is_taken_off(shape):
    images = torch.rand(shape)
    assert tiny_repaint().eval()(images) is images
    assert tiny_repaint().eval()(torch.rand(2, 4, 32, 32)).shape == (2, 3, 32, 32)


@pytest.mark.parametrize('stopped', [False, True])
def test_in_evaluation_and_after_stop_images_pass_unchanged(stopped):
    batch, target = tiny_batch(8)
    repaint = tiny_repaint(mix='both')
    if stopped:
        repaint.stop()
        repaint.train()
    else:
        repaint.eval()
    assert torch.equal(repaint(batch), batch[:, :3])
    images, same = repaint(batch[:, :3], target)
    assert torch.equal(images, batch[:, :3]) and same is target
    assert repaint(images) is images


def test_after_stop_a_step_does_nothing_and_the_state_keeps_it(caplog):
    repaint, model = tiny_repaint(), tiny_classifier()
    learn(repaint, model, *tiny_batch())
    repaint.stop()
    before = snapshot(repaint.repainter), snapshot(repaint.discriminator)
    assert learn(repaint, model, *tiny_batch()).as_dict() == {} and repaint.task_learns
    assert changed(repaint.repainter, before[0]) == changed(repaint.discriminator, before[1]) == set()
    other = tiny_repaint()
    with caplog.at_level(logging.WARNING, logger='timm_repaint'):
        other.load_state_dict(repaint.state_dict())
    assert other.stopped and other.updates == 1 and 'saved after stop()' in caplog.text


def test_under_no_grad_images_are_repainted_and_nobody_learns(caplog):
    repaint, (batch, _) = paints_next(tiny_repaint()), tiny_batch(8)
    with torch.no_grad(), caplog.at_level(logging.WARNING, logger='timm_repaint'):
        seen = repaint(batch)
        repaint(batch)  # no step is due
    assert caplog.text.count('under torch.no_grad(): images are repainted, nobody learns') == 1
    assert (seen - batch[:, :3]).abs().max() > 0.1
    with pytest.raises(RuntimeError, match=r'step\(\) without a batch: .* outside torch.no_grad'):
        repaint.step()


def test_a_validation_that_would_be_of_repaints_is_told_without_a_network_too(caplog):
    repaint, (batch, target) = tiny_repaint(generator='shift', mix='both'), tiny_batch(8)
    with torch.no_grad(), caplog.at_level(logging.WARNING, logger='timm_repaint'):
        assert len(repaint.eval()(batch, target)[0]) == 8 and 'no_grad' not in caplog.text
        for _ in range(2):
            assert len(repaint.train()(batch, target)[0]) == 12
    (said,) = [line for line in caplog.messages if 'no_grad' in line]
    assert said.endswith('images are repainted. To validate, call repaint.eval() first.')


def test_a_source_of_ones_own_may_give_tensors_and_on_the_device_needs_two_methods_more():
    class Source:
        kind, num_labels, on_device = 'segment', None, False

        def __call__(self, image_u8):
            return torch.arange(image_u8.shape[1]).expand(image_u8.shape[:2]) // 8

    batch = tiny_batch(8)[0][:, :3]
    assert not torch.equal(tiny_repaint(generator='shift', masks=Source())(batch), batch)
    Source.on_device = True
    with pytest.raises(UsageError, match='masks is a Source without to, labels; it must be'):
        tiny_repaint(generator='shift', masks=Source())


def test_a_painter_without_a_network_repaints_and_has_nothing_to_learn():
    repaint, (batch, _) = tiny_repaint(generator='shift'), tiny_batch(8)
    for _ in range(3):
        assert (repaint(batch) - batch[:, :3]).abs().max() > 0.1
        assert repaint.step().as_dict() == {}
    assert list(repaint.parameters()) == [] and repaint.skipped == {'task': 0}


def test_a_second_forward_without_a_step_is_refused_and_drop_allows_it():
    repaint, (batch, _) = tiny_repaint(), tiny_batch()
    repaint(batch)
    with pytest.raises(RuntimeError, match=r'a second training forward without a step\(\).*repaint\.drop\(\)'):
        repaint(batch)
    repaint.drop()
    repaint(batch)


@pytest.mark.parametrize('options', [{'mix': 'both'}, {'separate_batches': True}])
def test_without_a_target_where_the_batch_changes_the_call_is_refused(options):
    with pytest.raises(ValueError, match=r'changes the batch, got no target; call images, target = repaint'):
        tiny_repaint(**options)(tiny_batch()[0])


@pytest.mark.parametrize('spoil', [lambda x: x.detach(), lambda x: x * 0 + 1], ids=['detached', 'under no_grad'])
def test_a_network_that_keeps_the_gradient_from_the_repaints_is_named(spoil):
    repaint, model, (batch, target) = paints_next(tiny_repaint()), tiny_classifier(), tiny_batch()
    with torch.no_grad():
        features = spoil(repaint.eval()(batch))
    repaint.train()
    repaint(batch)
    torch.nn.functional.cross_entropy(model(features), target).backward()
    with pytest.raises(RuntimeError, match=r'no gradient has reached the repaints.*no_grad.*detached.*task_weight=0'):
        repaint.step()


def test_frozen_weights_let_the_gradient_through():
    repaint, model = paints_next(tiny_repaint()), tiny_classifier()
    model.requires_grad_(False)
    model.get_classifier().requires_grad_(True)
    assert learn(repaint, model, *tiny_batch()).g_gan is not None


def test_without_weight_of_the_task_no_gradient_is_asked_for():
    repaint = paints_next(tiny_repaint(task_weight=0.0))
    seen = repaint(tiny_batch()[0])
    assert not seen.requires_grad
    assert repaint.step().g_gan is not None


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda x: (x[:, :3] * 60 + 120).clamp(0, 255), r'reach from .* to .*; they must lie in \[0, 1\]'),
        (lambda x: x[:, :3] * float('nan'), r'reach from nan to nan'),
        (lambda x: x[:, :3].byte(), r'the images are torch.uint8; they must be floating point'),
        (lambda x: x[:, :2], r'the images are \(4, 2, 32, 32\); repainting needs RGB'),
        (lambda x: x[0, :3], r'the images are \(3, 32, 32\); repainting needs RGB'),
        (lambda x: x[:, :3, :16, :16], r'the images are 16x16 px, repainting needs 32'),
    ],
)
def test_images_that_are_no_normalised_rgb_batch_are_refused(make, message):
    images = make(tiny_batch()[0])
    labels = torch.zeros(len(images), *images.shape[-2:]) if images.ndim == 4 else None
    with pytest.raises(ValueError, match=message):
        tiny_repaint()(images, labels=labels)


def test_mean_and_std_may_be_tensors():
    repaint = Repaint(torch.tensor(MEAN), np.float32(STD), masks=None, width=4)
    repaint.load_state_dict(repaint.state_dict())
    assert repaint.config.mean == pytest.approx(MEAN) and type(repaint.config.mean[0]) is float


def test_mean_and_std_may_be_whole_numbers():
    repaint, batch = Repaint((0, 0, 0), (1, 1, 1), masks=None, width=4), tiny_batch()[0]
    images01 = batch[:, :3].sigmoid()
    torch.testing.assert_close(repaint(images01, labels=batch[:, 3])[2:], images01[2:])


def test_images_on_another_device_are_named():
    with pytest.raises(ValueError, match=r"the images are on meta, Repaint on cpu; call repaint.to\('meta'\)"):
        tiny_repaint()(tiny_batch()[0].to('meta'))


def test_the_range_is_looked_at_in_the_first_training_batch_only():
    repaint, (batch, _) = tiny_repaint(), tiny_batch()
    repaint.eval()(batch * 100)
    repaint.train()(batch)
    repaint.drop()
    repaint(torch.cat([batch[:, :3] * 100, batch[:, 3:]], dim=1))


def test_label_maps_of_another_size_are_refused():
    batch, _ = tiny_batch()
    with pytest.raises(ValueError, match=r'the label maps are \(4, 16, 16\); the images need \(4, 32, 32\)'):
        tiny_repaint()(batch[:, :3], labels=torch.zeros(4, 16, 16))
    with pytest.raises(ValueError, match='with label maps as fourth channel; leave labels out'):
        tiny_repaint()(batch, labels=torch.zeros(4, 32, 32))


def test_without_label_maps_the_source_cuts_those_of_the_repainted_images():
    class Halves:
        kind, num_labels, on_device = 'segment', None, False

        def __init__(self):
            self.seen = []

        def __call__(self, image_u8):
            self.seen.append(image_u8)
            return np.repeat([[0] * 16 + [1] * 16], 32, axis=0).astype(np.uint16)

    source, batch = Halves(), tiny_batch(8)[0]
    batch[:, :3] = batch[:, :3].clamp(-1, 1)
    repaint = tiny_repaint(masks=source, generator='mean')
    seen = repaint(batch[:, :3])
    assert len(source.seen) == 4 and source.seen[0].dtype == np.uint8
    back = (source.seen[1].transpose(2, 0, 1) / 255 - np.array(MEAN).reshape(3, 1, 1)) / np.array(STD).reshape(3, 1, 1)
    assert np.abs(back - batch[1, :3].numpy()).max() < 0.5 / 255 / min(STD) + 1e-6
    flat = seen[0, :, :, :16]  # one segment, one colour
    torch.testing.assert_close(flat, flat[:, :1, :1].expand_as(flat))


def test_cutting_masks_in_forward_is_told_once_with_its_cost(caplog):
    repaint = tiny_repaint(masks='fh', generator='shift')
    caplog.clear()
    images = tiny_batch(2)[0][:, :3]
    with caplog.at_level(logging.WARNING, logger='timm_repaint'):
        for _ in range(19):
            repaint(images)
        assert caplog.records == []
        for _ in range(5):
            repaint(images)
    (record,) = caplog.records
    assert 'ms a batch; leave masks to their default, or cut them in the workers' in record.message
    assert 'with_masks(transform' in record.message


def test_a_network_makes_label_maps_on_the_device_and_is_no_part_of_the_state():
    class Net(torch.nn.Module):
        kind, num_labels, on_device = 'semantic', 3, True

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def labels(self, image_pm1):
            return (image_pm1.mean(1) > 0).long()

        def forward(self, image_u8):
            raise AssertionError

    repaint = tiny_repaint(masks=Net())
    assert repaint.repainter.config['num_labels'] == 3
    learn(paints_next(repaint), tiny_classifier(), tiny_batch(8)[0][:, :3], tiny_batch(8)[1])
    assert {key.split('.')[0] for key in repaint.state_dict()} == {'repainter', 'discriminator', '_extra_state'}


def test_without_label_maps_and_source_the_call_is_refused():
    with pytest.raises(ValueError, match=r'no label maps and there is no mask source; give labels=…, or masks=…'):
        tiny_repaint()(tiny_batch()[0][:, :3])


def test_semantic_label_maps_take_255_as_unknown():
    batch, target = tiny_batch(8)
    batch[:, 3] = torch.randint(4, (8, 32, 32)).float()
    batch[0, 3, :4] = 255
    repaint = paints_next(tiny_repaint(num_labels=4))
    metrics = learn(repaint, tiny_classifier(), batch, target)
    assert all(value.isfinite() for value in metrics.as_dict().values())


@pytest.mark.parametrize('label', [300.0, -1.0])
def test_a_label_that_a_byte_does_not_hold_is_refused_in_the_fourth_channel(label):
    images, target = tiny_batch(4)
    images[0, 3] = label
    with pytest.raises(UsageError, match='must be from 0 to 255'):
        tiny_repaint()(images, target)
