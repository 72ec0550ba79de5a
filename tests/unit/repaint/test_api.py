"""What `Repaint` takes and returns: targets, label maps, views, memory, modes; and what it says of mistakes."""

import logging
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tiny import MEAN, STD, changed, learn, paints_next, snapshot, tiny_batch, tiny_classifier, tiny_repaint
from timm_repaint import Repaint, RepaintConfig
from timm_repaint.config import DEFAULTS, RepaintOptions


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


# Construction ---------------------------------------------------------------------------------------------------------


def test_the_typed_options_are_the_fields_of_the_config():
    assert RepaintOptions.__annotations__.keys() == DEFAULTS.keys() - {'mean', 'std'}


def test_a_config_makes_the_same_as_its_options():
    options = {'masks': None, 'width': 4, 'prob': 0.25, 'schedule': (1, 2)}
    repaint = Repaint.from_config(RepaintConfig(MEAN, STD, **options))
    assert repaint.config == Repaint(MEAN, STD, **options).config


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'prob': 0}, r'prob is 0; it must be above 0 and at most 1'),
        ({'prob': 1.5}, r'prob is 1.5; it must be above 0 and at most 1'),
        ({'width': 2.5}, r'width is 2.5; it must be a whole number, 1 or more'),
        ({'mix': 'beside'}, r"mix is 'beside'; choose one of replace, both"),
        ({'generator': 'heavy'}, r"generator is 'heavy'; choose one of light, spade, mean, jitter, shift, randconv"),
        ({'schedule': (2, 0)}, r'schedule is \(2, 0\); it must be two whole numbers of 1 or more'),
        ({'freeze': True}, r'freeze needs a checkpoint'),
        ({'generator': 'shift', 'checkpoint': 'x.pth'}, r"generator 'shift' has no network to load or to freeze"),
        ({'generator': 'mean', 'detail': 'swap'}, r"paints without detail; use 'shift'"),
        ({'masks': 'slic'}, r"masks is 'slic'; choose one of fh, superpixels, deeplabv3"),
        ({'masks': 3}, r'masks is a int; it must be a name, a MaskSource or None'),
        ({'num_labels': 300}, r'num_labels is 300; it must be from 1 to 255'),
        ({'task_weight': float('nan')}, r'task_weight is nan; it must be 0 or more'),
        ({'width': float('inf')}, r'width is inf; it must be a whole number'),
        ({'schedule': 5}, r'schedule is 5; it must be two whole numbers'),
        ({'freeze': 'no'}, r"freeze is 'no'; it must be True or False"),
        ({'views': 2, 'mix': 'both'}, r"views is for mix='replace'"),
        ({'generator': 'shift', 'separate_batches': True}, r"'shift' never learns, so it has no separate_batches"),
        ({'checkpoint': 'nowhere.pth'}, r'nowhere.pth: No such file'),
    ],
)
def test_a_wrong_value_is_named_with_what_is_wanted(options, message):
    with pytest.raises(ValueError, match=message):
        Repaint(MEAN, STD, **options)


@pytest.mark.parametrize(
    ('mean', 'std', 'message'),
    [
        (0.5, STD, 'mean is'),
        (('a', 'b', 'c'), STD, 'mean is'),
        ((0.5,), STD, 'mean is'),
        (MEAN, (0.2, 0.0, 0.2), 'std is .* must be above 0'),
        (MEAN, STD[:2], 'std is'),
    ],
)
def test_mean_and_std_are_three_values_that_can_be_undone(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Repaint(mean, std)


@pytest.mark.parametrize(('img_size', 'layers'), [(None, 4), (224, 4), (64, 4), (63, 3), (32, 3)])
def test_the_discriminator_has_a_layer_less_for_small_images(img_size, layers):
    assert len(Repaint(MEAN, STD, img_size=img_size).discriminator.scales[0].layers) == layers


# What goes in and comes out -------------------------------------------------------------------------------------------


def test_images_with_label_maps_as_fourth_channel_and_beside_them_are_repainted_alike():
    batch, _ = tiny_batch(8)
    outputs = []
    for arguments in ((batch, {}), (batch[:, :3], {'labels': batch[:, 3].long()})):
        torch.manual_seed(0)
        repaint = tiny_repaint()
        outputs.append(repaint(arguments[0], **arguments[1]))
    assert torch.equal(*outputs) and outputs[0].shape == (8, 3, 32, 32)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('mix', ['replace', 'both'])
def test_a_fresh_tensor_of_the_same_type_and_layout_comes_out(dtype, layout, mix):
    batch, target = tiny_batch(8)
    images = batch[:, :3].to(dtype).contiguous(memory_format=layout)
    before = images.clone()
    repaint = tiny_repaint(mix=mix)
    seen, _ = repaint(images, target, labels=batch[:, 3])
    assert seen.dtype == dtype and seen.is_contiguous(memory_format=layout)
    assert torch.equal(images, before) and seen.data_ptr() != images.data_ptr()
    seen.mul_(0)  # random erasing and the like work in place, in E and G's batches too
    assert torch.equal(images, before)


def test_what_comes_out_may_be_changed_in_place_where_encoder_and_generator_learn():
    batch, _ = tiny_batch(8)
    repaint, model = paints_next(tiny_repaint()), tiny_classifier()
    seen = repaint(batch)
    seen[:, :, :4] = 0
    model(seen).sum().backward()
    assert set(repaint.step().as_dict()) == {'d_loss', 'g_gan', 'g_feat', 'g_kl', 'g_segment_kl'}


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


@pytest.mark.parametrize('kind', ['tensor', 'tuple', 'named tuple', 'dict', 'ordered dict', 'list', 'tuple of dicts'])
def test_targets_of_any_kind_follow_their_images(kind):
    batch, number = tiny_batch(8)[0], torch.arange(8)
    make = {
        'tensor': lambda: number,
        'tuple': lambda: (number, number + 10),
        'named tuple': lambda: Pair(number, number + 10),
        'dict': lambda: {'a': number, 'b': number + 10},
        'ordered dict': lambda: OrderedDict(a=number, b=number + 10),
        'list': lambda: [{'boxes': torch.full((n, 4), float(n))} for n in range(8)],
        'tuple of dicts': lambda: tuple({'boxes': torch.full((n, 4), float(n))} for n in range(8)),
    }[kind]()
    seen, target = tiny_repaint(mix='both', prob=0.25)(batch, make)
    wanted = [0, 1, *range(8)]
    assert len(seen) == 10 and type(target) is type(make)
    if kind in ('list', 'tuple of dicts'):
        assert [len(entry['boxes']) for entry in target] == wanted
        return
    values = [target] if kind == 'tensor' else list(target.values()) if 'dict' in kind else list(target)
    for offset, value in zip((0, 10), values, strict=False):
        assert value.tolist() == [number + offset for number in wanted]


def test_a_target_of_another_kind_is_refused():
    with pytest.raises(ValueError, match='the target is a str; it must be a tensor, a tuple or dict'):
        tiny_repaint(mix='both')(tiny_batch()[0], 'cat')


@pytest.mark.parametrize(
    'target',
    [torch.arange(2), torch.tensor(3), [1, 2, 3], {'a': torch.arange(8), 'b': torch.arange(9)}, (torch.arange(7),)],
    ids=['short', 'without dimensions', 'list', 'dict', 'tuple'],
)
@pytest.mark.parametrize('mix', ['both', 'replace'])
def test_a_target_of_another_length_is_refused(target, mix):
    with pytest.raises(ValueError, match='for 8 images; it must have one entry an image'):
        tiny_repaint(mix=mix)(tiny_batch(8)[0], target)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda maps: maps * 0.5 + 0.3, 'the label maps are no whole numbers'),
        (lambda maps: maps * float('nan'), 'the label maps are no whole numbers'),
        (lambda maps: maps * 0 + 77, 'no pixel of the label maps has a class from 0 to 2'),
    ],
)
@pytest.mark.parametrize('beside', [False, True])
def test_what_cannot_be_label_maps_is_refused(change, message, beside):
    batch, _ = tiny_batch()
    maps = change(batch[:, 3])
    repaint = tiny_repaint(num_labels=3)
    with pytest.raises(ValueError, match=message):
        if beside:
            repaint(batch[:, :3], labels=maps)
        else:
            repaint(torch.cat([batch[:, :3], maps[:, None]], dim=1))


def test_a_few_pixels_of_erasing_by_noise_pass():
    batch, _ = tiny_batch(8)
    batch[0, :3, :8, :8] = 4 * torch.randn(3, 8, 8)
    tiny_repaint()(batch)


def test_images_that_require_a_gradient_are_refused():
    with pytest.raises(ValueError, match=r'the images require a gradient; .* give images.detach\(\)'):
        tiny_repaint()(tiny_batch()[0].requires_grad_())


@pytest.mark.parametrize('scale', [0, -1.0, float('nan')])
def test_a_scale_that_no_loss_has_is_refused_at_any_step(scale):
    repaint = tiny_repaint()
    repaint(tiny_batch()[0])
    with pytest.raises(ValueError, match=r'scale is .* above 0'):
        repaint.step(scale=scale)


def test_separate_batches_are_for_loops_that_ask():
    repaint, model, (batch, target) = tiny_repaint(separate_batches=True), tiny_classifier(), tiny_batch()
    for _ in range(2):
        learn(repaint, model, batch, target)
    with pytest.raises(RuntimeError, match=r'must not learn from this batch; ask repaint\.task_learns'):
        repaint(batch, target)
    assert not repaint.task_learns
    repaint(batch, target)


def test_of_two_views_of_each_image_the_first_share_of_each_is_repainted():
    batch, _ = tiny_batch(8)
    repaint = tiny_repaint(views=2)
    seen = repaint(batch)
    differs = (seen - batch[:, :3]).abs().flatten(1).amax(1) > 0.1
    assert differs.tolist() == repaint.split.tolist() == [True, True, False, False] * 2
    assert torch.equal(seen[~differs], batch[~differs, :3])


def test_a_batch_that_does_not_hold_the_views_is_refused():
    with pytest.raises(ValueError, match='a batch of 5 images does not hold 2 views of each'):
        tiny_repaint(views=2)(tiny_batch(5)[0])


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


# Modes ----------------------------------------------------------------------------------------------------------------


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


def test_a_painter_without_a_network_repaints_and_has_nothing_to_learn():
    repaint, (batch, _) = tiny_repaint(generator='shift'), tiny_batch(8)
    for _ in range(3):
        assert (repaint(batch) - batch[:, :3]).abs().max() > 0.1
        assert repaint.step().as_dict() == {}
    assert list(repaint.parameters()) == [] and repaint.skipped == {'task': 0}


# Mistakes -------------------------------------------------------------------------------------------------------------


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


# Label maps that are cut here -----------------------------------------------------------------------------------------


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
    images = tiny_batch(2)[0][:, :3]
    with caplog.at_level(logging.WARNING, logger='timm_repaint'):
        for _ in range(19):
            repaint(images)
        assert caplog.records == []
        for _ in range(5):
            repaint(images)
    (record,) = caplog.records
    assert 'ms a batch; cut them in the workers' in record.message and 'with_masks(transform' in record.message


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
