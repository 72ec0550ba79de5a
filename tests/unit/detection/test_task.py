"""DetectionTask: effdet's model and loss as a task of timm's."""

import argparse

import effdet
import pytest
import timm
import torch
from effdet import DetBenchTrain

from tests.unit.detection.tiny import boxes_of, tiny_detector
from timm_repaint.detection.coco_loaders import NO_CLASS, pad_objects
from timm_repaint.detection.options import build_parser
from timm_repaint.detection.task import DetectionTask, build_model, resolve_data
from timm_repaint.errors import UsageError

CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def model():
    return tiny_detector()


def images(count=2):
    return torch.randn(count, 3, 128, 128, generator=torch.Generator().manual_seed(0))


def test_the_loss_is_that_of_effdets_own_bench(model):
    task, bench = DetectionTask(model, CPU, None, verbose=False).eval(), DetBenchTrain(model).eval()
    target = boxes_of((10, 12, 60, 70, 3), (64, 64, 120, 100, 1))
    batch = target.expand(2, -1, -1)
    expected = bench(images(), {
        'bbox': batch[..., :4], 'cls': batch[..., 4], 'img_scale': torch.ones(2), 'img_size': torch.full((2, 2), 128.0)
    })  # fmt: skip
    result = task(images(), batch)
    for name in ('loss', 'class_loss', 'box_loss'):
        torch.testing.assert_close(result[name], expected[name])
    assert result['output'].ndim == 4


def test_rows_without_a_class_change_nothing(model):
    task = DetectionTask(model, CPU, None, verbose=False).eval()
    objects = boxes_of((10, 12, 60, 70, 3))[0]
    padded = pad_objects([objects, torch.zeros(0, 5)])
    wider = torch.cat([padded, torch.tensor([0.0, 0, 128, 128, NO_CLASS]).expand(2, 3, 5)], dim=1)
    assert torch.equal(task(images(), padded)['loss'], task(images(), wider)['loss'])


def test_images_without_objects_have_a_finite_loss_and_gradient(model):
    task = DetectionTask(model, CPU, None, verbose=False)
    task.zero_grad()
    result = task(images(), pad_objects([torch.zeros(0, 5)] * 2))
    result['loss'].backward()
    assert result['loss'].isfinite() and result['box_loss'] == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in task.parameters())


def test_the_checkpoint_state_is_the_plain_detector(model):
    state = DetectionTask(model, CPU, None, verbose=False).get_checkpoint_state()['state_dict']
    twin = tiny_detector(seed=1)
    twin.load_state_dict(state)  # strict
    assert set(state) == set(effdet.create_model('tf_efficientdet_d0', num_classes=3, pretrained_backbone=False,
                                                 image_size=(128, 128)).state_dict())  # fmt: skip


def test_the_momentum_of_all_batch_norms_can_be_set():
    argv = ['--dataset', 'shapes', '--img-size', '128', '--bn-momentum', '0.2']
    model = build_model(argparse.Namespace(**vars(build_parser().parse_args(argv)), rank=0), effdet.create_model)
    momenta = [module.momentum for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(momenta) > 100 and set(momenta) == {0.2}


@pytest.mark.parametrize(('name', 'mean'), [('tf_efficientdet_lite0', 0.5), ('tf_efficientdet_d0', 0.485)])
def test_a_model_says_how_its_images_are_normalised(name, mean):
    args = argparse.Namespace(**vars(build_parser().parse_args(['--dataset', 'shapes', '--model', name])), rank=0)
    resolved = resolve_data(args, build_model(args, effdet.create_model))
    assert len(resolved['mean']) == len(resolved['std']) == 3
    assert isinstance(resolved['mean'], tuple) and resolved['mean'][0] == mean


def test_an_unknown_model_is_refused_with_the_known_ones():
    args = build_parser().parse_args(['--dataset', 'shapes', '--model', 'resnet50'])
    with pytest.raises(UsageError, match=r"effdet has no model 'resnet50'; choose from .*tf_efficientdet_d0"):
        build_model(args, effdet.create_model)


@pytest.mark.parametrize(
    ('option', 'advice'),
    [
        ('--pretrained-backbone', 'give --pretrained-backbone-path FILE, or leave out --pretrained-backbone'),
        ('--pretrained', 'give --initial-checkpoint FILE, or leave out --pretrained'),
    ],
)
def test_without_a_network_the_advice_is_for_a_detector(option, advice):
    def create_model(*_, **__):
        raise ConnectionError('no network')

    with pytest.raises(UsageError, match=f'{advice}$'):
        build_model(backbone_options(option), create_model)


def test_arguments_that_have_an_option_are_named():
    args = backbone_options('--img-size', 128, '--model-kwargs', 'image_size=256')
    with pytest.raises(UsageError, match='--model-kwargs image_size: there is an option of its own'):
        build_model(args, effdet.create_model)


def backbone_options(*argv):
    argv = ['--dataset', 'shapes', '--model', 'tf_efficientdet_lite0', *map(str, argv)]
    return argparse.Namespace(**vars(build_parser().parse_args(argv)), rank=0)


def test_the_backbone_starts_from_a_file_of_a_classifier_with_a_head_of_its_own(tmp_path):
    classifier = timm.create_model('tf_efficientnet_lite0', num_classes=7)
    torch.save(classifier.state_dict(), tmp_path / 'weights.pth')
    args = backbone_options('--pretrained-backbone-path', tmp_path / 'weights.pth')
    model = build_model(args, effdet.create_model)
    name = 'blocks.0.0.conv_dw.weight'
    assert torch.equal(model.backbone.state_dict()[name], classifier.state_dict()[name])


@pytest.mark.parametrize(
    ('content', 'message'),
    [(None, '--pretrained-backbone-path'), (b'no weights', ''), ({}, 'has not the weights of'), ([1], '')],
)
def test_a_file_without_the_backbones_weights_is_named(content, message, tmp_path):
    path = tmp_path / 'weights.pth'
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UsageError, match=r'weights\.pth') as error:
        build_model(backbone_options('--pretrained-backbone-path', path), effdet.create_model)
    assert message in str(error.value) and '\n' not in str(error.value)
