"""What `Repaint` takes and returns: targets, label maps, memory, modes; and what it says of mistakes."""

from collections import OrderedDict, defaultdict
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.tiny import MEAN, STD, paints_next, tiny_batch, tiny_classifier, tiny_repaint
from timm_repaint import Repaint, RepaintConfig
from timm_repaint.errors import UsageError
from timm_repaint.masks import choice
from timm_repaint.masks.superpixels import SuperpixelMasks

pytestmark = pytest.mark.usefixtures('seeded')


# Construction ---------------------------------------------------------------------------------------------------------


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
        (
            {'generator': 'heavy'},
            r"generator is 'heavy'; choose one of light, spade, mean, jitter, shift, shift-randconv, randconv",
        ),
        ({'schedule': (2, 0)}, r'schedule is \(2, 0\); it must be two whole numbers of 1 or more'),
        ({'freeze': True}, r'freeze needs a checkpoint'),
        ({'generator': 'shift', 'checkpoint': 'x.pth'}, r"generator 'shift' has no network to load or to freeze"),
        ({'generator': 'mean', 'detail': 'swap'}, r"paints without detail; use 'shift'"),
        ({'masks': 'slic'}, r"masks is 'slic'; choose one of fh, superpixels, deeplabv3"),
        ({'masks': 3}, r'masks is a int without __call__, kind, num_labels, on_device; it must be a name'),
        ({'masks': SuperpixelMasks}, r'masks is the class SuperpixelMasks; give one of it'),
        ({'masks': SuperpixelMasks(), 'num_labels': 5}, r'num_labels is 5, the masks have None; leave num_labels out'),
        ({'num_labels': 300}, r'num_labels is 300; it must be from 1 to 255'),
        ({'task_weight': float('nan')}, r'task_weight is nan; it must be 0 or more'),
        ({'width': float('inf')}, r'width is inf; it must be a whole number'),
        ({'schedule': 5}, r'schedule is 5; it must be two whole numbers'),
        ({'freeze': 'no'}, r"freeze is 'no'; it must be True or False"),
        ({'generator': 'shift', 'separate_batches': True}, r"'shift' never learns, so it has no separate_batches"),
        (
            {'freeze': True, 'checkpoint': 'pretrained', 'separate_batches': True},
            r'a frozen generator never learns, so it has no separate_batches',
        ),
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
        ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4), 'mean is .*divide those of images in .0, 255. by 255'),
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


@pytest.mark.parametrize(
    'kind', ['tensor', 'tuple', 'named tuple', 'dict', 'ordered dict', 'default dict', 'list', 'tuple of dicts']
)
def test_targets_of_any_kind_follow_their_images(kind):
    batch, number = tiny_batch(8)[0], torch.arange(8)
    make = {
        'tensor': lambda: number,
        'tuple': lambda: (number, number + 10),
        'named tuple': lambda: Pair(number, number + 10),
        'dict': lambda: {'a': number, 'b': number + 10},
        'ordered dict': lambda: OrderedDict(a=number, b=number + 10),
        'default dict': lambda: defaultdict(list, a=number, b=number + 10),
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
    assert repaint.step().d_loss > 0  # the batch is still there


def test_classes_of_another_number_than_a_named_sources_are_refused(monkeypatch):
    class Fake:
        kind, num_labels, on_device = 'semantic', 21, False

        def __call__(self, image_u8):
            raise AssertionError('nothing is cut')

    monkeypatch.setitem(choice.NAMED_SOURCES, 'deeplabv3', Fake)
    with pytest.raises(UsageError, match='num_labels is 5, the masks have 21; leave num_labels out'):
        Repaint(MEAN, STD, masks='deeplabv3', num_labels=5)


@pytest.mark.parametrize(
    ('options', 'idle'),
    [
        ({'generator': 'shift', 'g_lr': 0.5, 'width': 3}, "generator='shift' these options do nothing: width, g_lr"),
        ({'freeze': True, 'checkpoint': 'pretrained', 'g_lr': 0.5}, 'With freeze=True these options do nothing: g_lr'),
        ({'latent': 'global', 'segment_kl_weight': 2.0}, 'do nothing: segment_kl_weight'),
    ],
)
def test_options_that_do_nothing_are_named(options, idle, caplog):
    Repaint(MEAN, STD, **options)
    (record,) = [record for record in caplog.records if 'do nothing' in record.message]
    assert record.message.endswith(idle)


@pytest.mark.parametrize('of', [np.float32, torch.tensor, np.float64])
def test_mean_and_std_may_be_numbers_of_other_libraries(of):
    repaint = Repaint(tuple(map(of, MEAN)), [of(value) for value in STD])
    assert repaint.config.mean == pytest.approx(MEAN) and repaint.config.std == pytest.approx(STD)


def test_a_preview_in_inference_mode_leaves_nothing_to_the_next_step():
    repaint, model, batch = tiny_repaint(), tiny_classifier(), tiny_batch()[:1]
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16):
        repaint(*batch)
    for _ in range(3):
        with torch.autocast('cpu', torch.bfloat16):
            output = model(repaint(*batch))
        output.square().mean().backward()
        repaint.step()
    assert repaint.updates == 3


def test_other_default_types_of_torch_make_no_difference():
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        repaint = paints_next(tiny_repaint(masks='superpixels'))
        images = repaint(tiny_batch()[0][:, :3].float())
        images.square().mean().backward()
        losses = repaint.step().as_dict()
    finally:
        torch.set_default_dtype(default)
    assert images.dtype == torch.float32 and all(value.isfinite() for value in losses.values())
    assert {value.dtype for value in repaint.parameters()} == {torch.float32}


@pytest.mark.parametrize('wrong', [[torch.zeros(3, 32, 32)] * 4, {'image': 1}, np.zeros((4, 3, 32, 32), np.float32)])
def test_images_and_label_maps_are_tensors(wrong):
    with pytest.raises(UsageError, match=rf'the images are a {type(wrong).__name__}; give one tensor, such'):
        tiny_repaint()(wrong)
    with pytest.raises(UsageError, match=f'the labels are a {type(wrong).__name__}; give one tensor'):
        tiny_repaint()(torch.zeros(4, 3, 32, 32), labels=wrong)


def test_an_entry_of_a_list_is_not_shared_by_a_repaint_and_its_original():
    target = [{'boxes': torch.ones(1, 4)} for _ in range(4)]
    _, joined = tiny_repaint(mix='both')(tiny_batch()[0], target)
    for one in joined:
        one['boxes'] *= 2
    assert [one['boxes'].unique().tolist() for one in joined] == [[2.0]] * 6
