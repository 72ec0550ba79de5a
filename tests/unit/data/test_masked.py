import functools

import numpy as np
import pytest
import torch
from timm.data import create_dataset, create_loader
from timm.data.dataset import IterableImageDataset
from timm.data.mixup import FastCollateMixup
from torchvision.datasets import ImageFolder

from tests.helpers import split_labels
from timm_repaint import batches
from timm_repaint.data.masked import WithMask, add_masks, extend_normalization
from timm_repaint.data.shapes import ShapesDataset
from timm_repaint.masks.felzenszwalb import FelzenszwalbMasks

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AUGMENTATION = {'hflip': 0.5, 'vflip': 0.5, 'color_jitter': 0.4, 'auto_augment': 'rand-m5-mstd0.5'}


class PixelIds:
    """Ids of 16 bits from the pixels themselves, so a shift by one pixel or one grey level shows."""

    kind = 'segment'
    num_labels = None

    def __call__(self, image_u8: np.ndarray) -> np.ndarray:
        return image_u8[..., 0].astype(np.uint16) * 256 + image_u8[..., 1]


class TenShapes:
    """A reader of the kind that timm's IterableImageDataset takes."""

    def __iter__(self):
        shapes = ShapesDataset(num_samples=10, image_size=40)
        return (shapes[index] for index in range(10))

    def __len__(self) -> int:
        return 10


def make_loader(dataset, source, prefetcher: bool = True, size_px: int = 32, **options):
    options = {'batch_size': 8, 'is_training': True, 'num_workers': 0, 'device': torch.device('cpu')} | options
    loader = create_loader(
        dataset,
        (3, size_px, size_px),
        mean=MEAN,
        std=STD,
        use_prefetcher=prefetcher,
        persistent_workers=False,
        **options,
    )
    add_masks(loader.dataset, source, MEAN, STD)
    extend_normalization(loader)
    return loader


def to_u8(image_norm: torch.Tensor) -> np.ndarray:
    """Normalised [B, 3, H, W] to [B, H, W, 3] uint8."""
    image = image_norm.float() * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    return image.mul(255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def assert_labels_are_the_masks_of(image_norm: torch.Tensor, labels: torch.Tensor, source) -> None:
    expected = np.stack([source(np.ascontiguousarray(image_u8)) for image_u8 in to_u8(image_norm)]) % 256
    np.testing.assert_array_equal(labels.numpy(), expected)


@pytest.mark.parametrize('num_workers', [0, 2])
@pytest.mark.parametrize('prefetcher', [True, False])
def test_labels_are_the_masks_of_the_augmented_images(shared_data, prefetcher, num_workers):
    torch.set_num_threads(1)
    dataset = create_dataset('', str(shared_data / 'cifar10' / 'validation'))
    source = FelzenszwalbMasks()
    loader = make_loader(dataset, source, prefetcher, num_workers=num_workers, **AUGMENTATION)
    for batch, _ in [batch for _, batch in zip(range(3), loader, strict=False)]:
        image_norm, labels = split_labels(batch)
        assert image_norm.shape == (8, 3, 32, 32)
        assert_labels_are_the_masks_of(image_norm, labels, source)


@pytest.mark.parametrize('prefetcher', [True, False])
def test_the_images_are_those_of_the_loader_without_masks(shared_data, prefetcher):
    dataset = create_dataset('', str(shared_data / 'cifar10' / 'validation'))
    options = {'is_training': False, 'num_workers': 0, 'device': torch.device('cpu'), 'use_prefetcher': prefetcher}
    plain = create_loader(dataset, (3, 32, 32), batch_size=8, mean=MEAN, std=STD, **options)
    expected, expected_target = next(iter(plain))
    batch, target = next(iter(make_loader(dataset, PixelIds(), prefetcher, is_training=False)))
    assert torch.equal(split_labels(batch)[0], expected)
    assert torch.equal(target, expected_target)


@pytest.mark.parametrize('prefetcher', [True, False])
def test_ids_beyond_a_byte_are_taken_modulo_256(shared_data, prefetcher):
    dataset = create_dataset('', str(shared_data / 'cifar10' / 'validation'))
    loader = make_loader(dataset, PixelIds(), prefetcher, **AUGMENTATION)
    image_norm, labels = split_labels(next(iter(loader))[0])
    assert labels.dtype == torch.int64
    assert labels.max() <= 255
    assert_labels_are_the_masks_of(image_norm, labels, PixelIds())


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_images_leave_labels_exact(shared_data, dtype):
    dataset = create_dataset('', str(shared_data / 'cifar10' / 'validation'))
    exact = make_loader(dataset, PixelIds(), is_training=False)
    _, expected = split_labels(next(iter(exact))[0])
    half = make_loader(dataset, PixelIds(), is_training=False, img_dtype=dtype)
    batch, _ = next(iter(half))
    assert batch.dtype == dtype
    assert torch.equal(split_labels(batch)[1], expected)


def test_iterable_data_sets_carry_masks():
    dataset = IterableImageDataset('', reader=TenShapes(), target_transform=None)
    loader = make_loader(dataset, PixelIds(), batch_size=5, **AUGMENTATION)
    batches = list(loader)
    assert [target.tolist() for _, target in batches] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    for batch, _ in batches:
        assert_labels_are_the_masks_of(*split_labels(batch), PixelIds())


def test_torchvision_data_sets_carry_masks(shared_data):
    loader = make_loader(ImageFolder(str(shared_data / 'cifar10' / 'validation')), PixelIds(), **AUGMENTATION)
    assert_labels_are_the_masks_of(*split_labels(next(iter(loader))[0]), PixelIds())


def test_batches_of_scheduled_sizes_carry_masks_of_their_size():
    dataset = ShapesDataset(num_samples=32, image_size=48)
    loader = make_loader(dataset, PixelIds(), batch_size=4, input_size_choices=(32, 48))
    sizes_px = set()
    for batch, _ in loader:
        assert_labels_are_the_masks_of(*split_labels(batch), PixelIds())
        sizes_px.add(batch.shape[-1])
    assert sizes_px == {32, 48}


def test_a_batch_is_split_into_image_and_labels():
    batch = torch.zeros(1, 4, 1, 2, dtype=torch.bfloat16)
    batch[0, :3, 0, 0] = torch.tensor([0.5, -1.0, 2.0])
    batch[0, 3, 0] = torch.tensor([44.0, 255.0])
    image, labels = batches.split_labels(batch, None)
    assert image[0, :, 0, 0].tolist() == [0.5, -1.0, 2.0]
    assert labels.tolist() == [[[44, 255]]]


def test_numpy_images_of_a_transform_are_accepted():
    image = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    tensor = WithMask(lambda picture: picture, PixelIds(), MEAN, STD)(image)
    assert tensor.dtype == torch.uint8
    assert torch.equal(tensor[:3], torch.from_numpy(image))
    assert tensor[3].tolist() == [[4, 5], [6, 7]]


def test_every_grey_level_survives_undoing_the_normalisation():
    image_u8 = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).repeat(3, 1, 1)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    normalise = functools.partial(lambda image: (image.float() / 255 - mean) / std)
    tensor = WithMask(normalise, PixelIds(), MEAN, STD)(image_u8)
    assert torch.equal(tensor[3], image_u8[0].float())


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r'mask is \(4, 4\), its image is \(8, 8\)'):
        WithMask(torch.as_tensor, lambda image_u8: np.zeros((4, 4), np.uint16), MEAN, STD)(
            torch.zeros(3, 8, 8, dtype=torch.uint8)
        )


def test_adding_masks_twice_is_refused(shared_data):
    dataset = create_dataset('', str(shared_data / 'cifar10' / 'validation'))
    loader = make_loader(dataset, PixelIds())
    add_masks(loader.dataset, PixelIds(), MEAN, STD)
    with pytest.raises(ValueError, match=r'masks need RGB images \[3, H, W\] from the transform, got \(4, 32, 32\)'):
        next(iter(loader))


def test_masks_before_the_loader_are_refused():
    with pytest.raises(
        ValueError, match=r'ShapesDataset has no transform; call add_masks after timm.data.create_loader'
    ):
        add_masks(ShapesDataset(), PixelIds(), MEAN, STD)


def test_grey_statistics_are_refused():
    with pytest.raises(ValueError, match='mean and std of an RGB image'):
        WithMask(torch.as_tensor, PixelIds(), (0.5,), (0.5,))


def test_plain_loaders_keep_their_settings():
    loader = torch.utils.data.DataLoader(ShapesDataset())
    before = dict(vars(loader))
    extend_normalization(loader)
    assert vars(loader) == before


def test_a_prefetcher_gets_mean_0_and_std_1_for_the_label_channel():
    loader = create_loader(ShapesDataset(), (3, 32, 32), 4, mean=MEAN, std=STD, device=torch.device('cpu'))
    mean, std = loader.mean.clone(), loader.std.clone()
    extend_normalization(loader)
    torch.testing.assert_close(loader.mean, torch.cat([mean, torch.zeros(1, 1, 1, 1)], 1), rtol=0, atol=0)
    torch.testing.assert_close(loader.std, torch.cat([std, torch.ones(1, 1, 1, 1)], 1), rtol=0, atol=0)


@pytest.mark.parametrize(
    'options', [{'re_prob': 0.5}, {'collate_fn': FastCollateMixup(mixup_alpha=1.0, num_classes=10)}]
)
def test_a_loader_that_would_erase_or_mix_labels_is_refused(options):
    loader = create_loader(
        ShapesDataset(), (3, 32, 32), 4, is_training=True, mean=MEAN, std=STD, device=torch.device('cpu'), **options
    )
    with pytest.raises(ValueError, match='on the device, after the repaint'):
        extend_normalization(loader)
