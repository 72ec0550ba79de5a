"""DeepLab mask sources on small real checkpoints in the public layouts, whole or wrong."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import segmentation
from torchvision.transforms.functional import normalize

from timm_repaint.errors import UsageError
from timm_repaint.masks import deeplab
from timm_repaint.masks.deeplab import DeepLabV2Masks, DeepLabV3Masks, load_deeplabv2, load_deeplabv3
from timm_repaint.masks.deeplab_network import DeepLabV2

SIZES = [(33, 57), (64, 64), (1, 1), (5, 40)]


def small_v2(num_classes: int = 5, seed: int = 0) -> DeepLabV2:
    """Random weights and batch norm statistics, so that nothing in the checkpoint is without effect."""
    torch.manual_seed(seed)
    net = DeepLabV2(num_classes, blocks=(1, 2, 2, 1), width=4)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean = torch.randn(norm.num_features) * 0.2
            norm.running_var = torch.rand(norm.num_features) * 1.5 + 0.5
            nn.init.normal_(norm.bias, 0, 0.3)
    return net.eval()


def older_spelling(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in state.items():
        if not key.endswith('num_batches_tracked'):  # the old files have none
            key = 'scale.' + key.removeprefix('base.')
            renamed[key.replace('aspp.', 'aspp.stages.').replace('shortcut.', 'proj.')] = value
    return renamed


def flat(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """One number a tensor: a full layout in a small file."""
    return {key: torch.ones((), dtype=value.dtype).expand(value.shape) for key, value in state.items()}


WRAPPINGS = {
    'plain': lambda state: state,
    'older spelling': older_spelling,
    'DataParallel': lambda state: {f'module.{key}': value for key, value in state.items()},
    'under state_dict': lambda state: {'state_dict': state, 'iteration': 100000},
    'under model, older, DataParallel': lambda state: {
        'model': {f'module.{key}': value for key, value in older_spelling(state).items()}
    },
    'half precision': lambda state: {
        key: value.half() if value.is_floating_point() else value for key, value in state.items()
    },
}


@pytest.fixture
def v2_file(tmp_path):
    path = tmp_path / 'small.pth'
    torch.save(small_v2().state_dict(), path)
    return str(path)


def random_pm1(batch: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def expected_v2_labels(net: DeepLabV2, image_pm1: Tensor) -> Tensor:
    rgb = (image_pm1 + 1) / 2 * 255
    blue, green, red = rgb[:, 2] - 104.008, rgb[:, 1] - 116.669, rgb[:, 0] - 122.675
    with torch.no_grad():
        logits = net(torch.stack([blue, green, red], dim=1))
    return F.interpolate(logits, image_pm1.shape[2:], mode='bilinear', align_corners=False).argmax(1)


@pytest.mark.parametrize('wrapping', WRAPPINGS)
def test_every_spelling_of_a_checkpoint_gives_the_network_that_was_saved(tmp_path, wrapping):
    net = small_v2()
    torch.save(WRAPPINGS[wrapping](net.state_dict()), tmp_path / 'net.pth')
    loaded = load_deeplabv2(str(tmp_path / 'net.pth'))
    tolerance = 1e-3 if wrapping == 'half precision' else 0.0
    ours, theirs = loaded.state_dict(), net.state_dict()
    assert list(ours) == list(theirs)
    for key in theirs:
        assert ours[key].dtype == theirs[key].dtype
        torch.testing.assert_close(ours[key], theirs[key], rtol=tolerance, atol=tolerance)


def test_files_of_the_time_before_zip_checkpoints_load(tmp_path):
    torch.save(small_v2().state_dict(), tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    assert load_deeplabv2(str(tmp_path / 'old.pth')).num_classes == 5


@pytest.mark.parametrize('num_classes', [2, 21, 182])
def test_number_of_classes_comes_from_the_last_layer(tmp_path, num_classes):
    torch.save(small_v2(num_classes).state_dict(), tmp_path / 'net.pth')
    masks = DeepLabV2Masks(str(tmp_path / 'net.pth'))
    assert (masks.kind, masks.num_labels, masks.on_device) == ('semantic', num_classes, True)


def test_full_layout_loads_in_the_older_spelling_with_182_classes(tmp_path):
    with torch.device('meta'):
        state = DeepLabV2(182).state_dict()
    torch.save(older_spelling(flat(state)), tmp_path / 'cocostuff.pth')
    masks = DeepLabV2Masks(str(tmp_path / 'cocostuff.pth'))
    assert masks.num_labels == 182
    assert {key: value.shape for key, value in masks.net.state_dict().items()} == {
        key: value.shape for key, value in state.items()
    }


def colour_net() -> DeepLabV2:
    """Passes its three input channels to the end; class 0 where blue is larger, class 1 where red is."""
    net = DeepLabV2(2, blocks=(1, 1, 1, 1), width=4)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 4:
                parameter.zero_()
        for channel in range(3):
            net.get_parameter('base.layer1.conv1.conv.weight')[channel, channel, 3, 3] = 1
            for layer in range(2, 6):
                net.get_parameter(f'base.layer{layer}.block1.shortcut.conv.weight')[channel, channel] = 1
        classifier = net.get_parameter('base.aspp.c0.weight')
        classifier[0, 0, 1, 1] = classifier[1, 2, 1, 1] = 1
    return net


def test_channels_are_blue_green_red_and_the_colour_edge_stays_where_it_is(tmp_path):
    torch.save(colour_net().state_dict(), tmp_path / 'colour.pth')
    image_u8 = np.zeros((48, 64, 3), np.uint8)
    image_u8[:, :32, 0] = 255  # red, then blue
    image_u8[:, 32:, 2] = 255
    labels = DeepLabV2Masks(str(tmp_path / 'colour.pth'))(image_u8)
    assert labels.dtype == np.uint16
    assert (labels[:, :28] == 1).all() and (labels[:, 36:] == 0).all()


def test_v2_sees_0_to_255_less_the_mean_without_division(v2_file):
    masks, seen = DeepLabV2Masks(v2_file), []
    masks.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    masks.labels(torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1))
    torch.testing.assert_close(seen[0].flatten(), torch.tensor([0 - 104.008, 127.5 - 116.669, 255 - 122.675]))


@pytest.mark.parametrize('size', SIZES)
def test_v2_labels_are_the_largest_logit_resized_to_the_image(v2_file, size):
    image_pm1 = random_pm1(3, *size)
    labels = DeepLabV2Masks(v2_file).labels(image_pm1)
    assert labels.dtype == torch.int64 and labels.shape == (3, *size)
    assert (labels == expected_v2_labels(small_v2(), image_pm1)).float().mean() > 0.999


def test_one_numpy_image_gets_the_labels_of_its_batch(v2_file):
    masks = DeepLabV2Masks(v2_file)
    image_u8 = np.random.default_rng(0).integers(0, 256, (33, 57, 3), dtype=np.uint8)
    image_u8.setflags(write=False)  # as Pillow gives it
    batch = torch.from_numpy(image_u8.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    labels = masks(image_u8)
    assert labels.dtype == np.uint16 and len(np.unique(labels)) > 1
    np.testing.assert_array_equal(labels, masks.labels(batch)[0].numpy())


def test_large_batches_in_chunks_give_the_same_labels(v2_file, monkeypatch):
    masks, image_pm1 = DeepLabV2Masks(v2_file), random_pm1(5, 33, 57)
    together = masks.labels(image_pm1)
    monkeypatch.setattr(deeplab, 'LOGITS_PER_CHUNK', 2 * 5 * 33 * 57)  # two images a chunk
    assert torch.equal(masks.labels(image_pm1), together)


def test_labels_work_under_autocast_and_mostly_agree_with_float32(v2_file):
    masks, image_pm1 = DeepLabV2Masks(v2_file), random_pm1(2, 64, 64)
    with torch.autocast('cpu', torch.bfloat16):
        labels = masks.labels(image_pm1)
    assert labels.dtype == torch.int64
    assert (labels == masks.labels(image_pm1)).float().mean() > 0.9


def test_source_stays_frozen_in_evaluation_mode_after_train(v2_file):
    masks, image_pm1 = DeepLabV2Masks(v2_file), random_pm1(2, 33, 57).requires_grad_()
    before = {key: value.clone() for key, value in masks.state_dict().items()}
    expected = masks.labels(image_pm1)
    nn.ModuleList([masks]).train()
    assert torch.equal(masks.labels(image_pm1), expected)
    assert not any(module.training for module in masks.modules())
    assert not any(parameter.requires_grad for parameter in masks.parameters())
    assert all(torch.equal(value, before[key]) for key, value in masks.state_dict().items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_labels_on_a_gpu_agree_with_the_processors(v2_file):
    masks, image_pm1 = DeepLabV2Masks(v2_file), random_pm1(2, 64, 64)
    expected = masks.labels(image_pm1)
    labels = masks.to('cuda').labels(image_pm1.to('cuda'))
    assert labels.is_cuda and (labels.cpu() == expected).float().mean() > 0.99
    assert masks(np.zeros((8, 9, 3), np.uint8)).shape == (8, 9)


@pytest.mark.parametrize(
    ('image_u8', 'got'),
    [(np.zeros((8, 8), np.uint8), '(8, 8) uint8'), (np.zeros((8, 8, 3), np.float32), '(8, 8, 3) float32')],
)
def test_grey_or_float_pictures_are_refused(v2_file, image_u8, got):
    with pytest.raises(ValueError, match='RGB image') as error:
        DeepLabV2Masks(v2_file)(image_u8)
    assert got in str(error.value)


def test_batches_without_three_channels_are_refused(v2_file):
    with pytest.raises(ValueError, match=r'RGB images \[B, 3, H, W\], got \(2, 1, 8, 8\)'):
        DeepLabV2Masks(v2_file).labels(torch.zeros(2, 1, 8, 8))


def test_checkpoint_of_another_layout_is_refused_with_the_first_keys_that_differ(tmp_path):
    path = tmp_path / 'resnet.pth'
    torch.save({'conv1.weight': torch.zeros(64, 3, 7, 7), 'fc.bias': torch.zeros(10)}, path)
    with pytest.raises(UsageError) as error:
        DeepLabV2Masks(str(path))
    assert str(error.value) == (
        f'{path} is not DeepLab-v2: missing base.layer1.conv1.conv.weight, base.layer1.conv1.bn.weight, '
        'base.layer1.conv1.bn.bias and 525 more; unexpected conv1.weight, fc.bias'
    )
    with pytest.raises(UsageError, match=r'is not DeepLab-v3 with resnet50: missing backbone\.conv1\.weight'):
        DeepLabV3Masks(str(path))


def test_checkpoint_with_a_hole_an_extra_key_and_another_shape_names_all_three(tmp_path):
    state = small_v2().state_dict()
    state = {key: value for key, value in state.items() if not key.startswith('base.layer4.block1.increase.conv')}
    state['base.crf.weight'] = torch.zeros(3)
    state['base.aspp.c2.weight'] = torch.zeros(6, 128, 3, 3)
    torch.save(state, tmp_path / 'net.pth')
    with pytest.raises(UsageError) as error:
        load_deeplabv2(str(tmp_path / 'net.pth'))
    assert str(error.value).endswith(
        'missing base.layer4.block1.increase.conv.weight; unexpected base.crf.weight; '
        'of another shape base.aspp.c2.weight [6, 128, 3, 3] instead of [5, 128, 3, 3]'
    )


@pytest.mark.parametrize('source', [DeepLabV2Masks, DeepLabV3Masks])
def test_missing_damaged_and_empty_files_are_refused_by_name(tmp_path, v2_file, source):
    with open(v2_file, 'rb') as file:
        content = file.read()
    cases = {'none.pth': None, 'cut.pth': content[: len(content) // 2], 'text.pth': b'not found', 'empty.pth': b''}
    for name, data in cases.items():
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(UsageError, match='No such file' if data is None else 'is not a checkpoint') as error:
            source(str(path))
        assert str(path) in str(error.value) and '\n' not in str(error.value)


def test_files_without_tensors_or_with_too_many_classes_are_refused(tmp_path):
    torch.save({'state_dict': {}, 'epoch': 3}, tmp_path / 'empty.pth')
    with pytest.raises(UsageError, match=r'empty\.pth holds no tensors by name'):
        load_deeplabv2(str(tmp_path / 'empty.pth'))
    torch.save(small_v2(256).state_dict(), tmp_path / 'many.pth')
    with pytest.raises(UsageError, match=r'many\.pth has 256 classes; a label map holds 255 and 255 = unknown'):
        load_deeplabv2(str(tmp_path / 'many.pth'))


@pytest.fixture(scope='module')
def v3_net():
    """DeepLab-v3 on ResNet-50 with an auxiliary head and 7 classes."""
    torch.manual_seed(0)
    return segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=7, aux_loss=True).eval()


@pytest.fixture(scope='module')
def v3_file(v3_net, tmp_path_factory):
    path = tmp_path_factory.mktemp('v3') / 'v3.pth'
    torch.save({'model': v3_net.state_dict(), 'epoch': 29}, path)  # as torchvision's reference script saves it
    return str(path)


def test_v3_labels_are_those_of_torchvisions_forward_pass(v3_net, v3_file):
    masks, image_pm1 = DeepLabV3Masks(v3_file), random_pm1(2, 33, 57)
    assert (masks.kind, masks.num_labels, masks.on_device) == ('semantic', 7, True)
    with torch.no_grad():
        expected = v3_net(normalize((image_pm1 + 1) / 2, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))['out'].argmax(1)
    labels = masks.labels(image_pm1)
    assert labels.dtype == torch.int64 and len(labels.unique()) > 1
    assert (labels == expected).float().mean() > 0.999  # the preparations differ in rounding
    with torch.autocast('cpu', torch.bfloat16):
        assert (masks.labels(image_pm1) == labels).float().mean() > 0.8
    assert masks(np.zeros((9, 8, 3), np.uint8)).shape == (9, 8)


@pytest.mark.parametrize('aux', [True, False])
@pytest.mark.parametrize('depth', ['resnet50', 'resnet101'])
def test_v3_depth_is_read_from_the_keys_and_the_auxiliary_head_is_left_out(tmp_path, depth, aux):
    torch.save(flat_v3_state(depth, aux), tmp_path / 'v3.pth')
    net, num_labels = load_deeplabv3(str(tmp_path / 'v3.pth'))
    assert num_labels == 21
    assert len(list(net.get_submodule('backbone.layer3').children())) == {'resnet50': 6, 'resnet101': 23}[depth]
    assert not any('aux' in key for key in net.state_dict())


def flat_v3_state(depth: str, aux: bool) -> dict[str, Tensor]:
    build = {'resnet50': segmentation.deeplabv3_resnet50, 'resnet101': segmentation.deeplabv3_resnet101}[depth]
    with torch.device('meta'):
        state = build(weights=None, weights_backbone=None, aux_loss=aux).state_dict()
    return flat(state)


def test_v3_without_a_file_takes_torchvisions_weights_from_its_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    cached = tmp_path / 'hub' / 'checkpoints' / 'deeplabv3_resnet101_coco-586e9e4e.pth'
    cached.parent.mkdir(parents=True)
    torch.save(flat_v3_state('resnet101', aux=True), cached)
    assert DeepLabV3Masks().num_labels == 21


def test_v3_without_a_file_and_without_a_network_asks_for_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    for name in ('https_proxy', 'HTTPS_PROXY'):
        monkeypatch.setenv(name, 'http://127.0.0.1:9')  # nobody listens there
    for name in ('no_proxy', 'NO_PROXY'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match=r'could not download https://.*give a local file with --mask-checkpoint FILE'):
        DeepLabV3Masks()
