import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import AugMixDataset, ImageDataset, auto_augment, create_loader, create_transform
from torchvision import transforms

from timm_repaint.data.masked import extend_normalization, split_labels
from timm_repaint.data.named import NamedImages
from timm_repaint.data.replay import COLOUR_OPS, MOVING_OPS, OUTSIDE, Replay
from timm_repaint.data.stored import (
    Masked,
    StoredMaskImages,
    WithStoredMask,
    follow_schedule,
    has_files,
    known_classes,
    segment_ids,
)
from timm_repaint.errors import UsageError
from timm_repaint.masks.cache import Folders, list_images, make_masks
from timm_repaint.masks.felzenszwalb import FelzenszwalbMasks
from timm_repaint.masks.folder import CachedMasks, FolderMasks
from timm_repaint.masks.label_png import save_labels
from timm_repaint.masks.manifest import claim_folder, describe

# Far apart, and the last two are what timm fills in from outside the image: grey, or black.
COLOURS = np.array(
    [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255), (255, 255, 255)], np.int64
)
FILLS = np.array([(124, 116, 104), (0, 0, 0)], np.int64)  # ImageNet's mean
IMAGE_SIZES = [(150, 200), (211, 97), (60, 60)]


def scene(height: int, width: int, seed: int) -> np.ndarray:
    """Label map of plain regions: each pixel belongs to the nearest of some points."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 1, (len(COLOURS), 2)) * (height, width)
    rows, columns = np.mgrid[:height, :width]
    return ((rows[..., None] - points[:, 0]) ** 2 + (columns[..., None] - points[:, 1]) ** 2).argmin(-1)


def paint(labels: np.ndarray) -> Image.Image:
    return Image.fromarray(COLOURS[labels].astype(np.uint8))


def labels_from_colours(image_u8: np.ndarray) -> np.ndarray:
    """[3, H, W] back to labels: the nearest colour's number, 255 for the colours from outside."""
    palette = np.concatenate([COLOURS, FILLS])
    distance = ((image_u8.astype(np.int64)[:, None] - palette.T[..., None, None]) ** 2).sum(0)
    nearest = distance.argmin(0)
    return np.where(nearest < len(COLOURS), nearest, 255)


def inner(labels: np.ndarray, margin: int) -> np.ndarray:
    """Where all labels up to `margin` pixels away are equal (beyond the edge too, where a copy of it goes on)."""
    padded = np.pad(labels, margin, mode='edge')
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * margin + 1, 2 * margin + 1))
    return windows.min((-1, -2)) == windows.max((-1, -2))


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_numbers() -> tuple[float, float, float]:
    """What each generator would draw next; NumPy's stays as it is."""
    numpy_copy = np.random.RandomState()
    numpy_copy.set_state(np.random.get_state())
    return random.random(), float(numpy_copy.rand()), float(torch.rand(()))


def agreement(transform, stored_scale: int, margin: int, seeds: range) -> float:
    """Share of pixels away from borders whose replayed label is that of the colour they have."""
    equal, total = 0, 0
    with_mask = WithStoredMask(transform, 'semantic')
    for seed in seeds:
        labels = scene(*IMAGE_SIZES[seed % len(IMAGE_SIZES)], seed)
        stored = labels[stored_scale // 2 :: stored_scale, stored_scale // 2 :: stored_scale]
        seed_all(seed)
        result = with_mask(Masked(paint(labels), stored.astype(np.uint16))).numpy()
        expected = labels_from_colours(result[:3])
        away = inner(expected, margin)
        equal += (result[3] == expected)[away].sum()
        total += away.sum()
    assert total > 1000 * len(seeds)  # most of the picture counts
    return equal / total


MODES = {
    'rrc': {},
    'rrc, large crops': {'scale': (0.5, 1.0), 'ratio': (0.6, 1.6)},
    'rkrc': {'train_crop_mode': 'rkrc'},
    'rkrr': {'train_crop_mode': 'rkrr'},
    'rkrr, smaller and larger': {'train_crop_mode': 'rkrr', 'scale': (0.4, 2.0), 'ratio': (0.7, 1.4)},
    'no-aug': {'no_aug': True},
    'always flipped': {'hflip': 1.0, 'vflip': 1.0},
    'sometimes flipped': {'hflip': 0.5, 'vflip': 0.5, 'interpolation': 'random'},
}


@pytest.mark.parametrize('size', [96, (64, 128)], ids=['square', 'not square'])
@pytest.mark.parametrize('mode', MODES.values(), ids=MODES)
def test_mask_and_image_agree_in_every_crop_mode(mode, size):
    transform = create_transform(size, is_training=True, color_jitter=None, use_prefetcher=True, **mode)
    assert agreement(transform, stored_scale=1, margin=3, seeds=range(12)) >= 0.99


def test_a_mask_stored_at_half_the_size_agrees_too():
    transform = create_transform(96, is_training=True, color_jitter=None, use_prefetcher=True, scale=(0.5, 1.0))
    assert agreement(transform, stored_scale=2, margin=4, seeds=range(12)) >= 0.99


@pytest.mark.parametrize('interpolation', ['bilinear', 'random'])
@pytest.mark.parametrize('name', sorted(MOVING_OPS))
def test_mask_and_image_agree_under_each_moving_operation(name, interpolation):
    transform = create_transform(
        (96, 112), is_training=True, color_jitter=None, use_prefetcher=True, auto_augment='rand-m9-mstd0.5',
        interpolation=interpolation, scale=(0.5, 1.0),
    )  # fmt: skip
    randaugment = transform.transforms[-2]
    hparams = randaugment.ops[0].hparams
    randaugment.ops = [auto_augment.AugmentOp(name, prob=1.0, magnitude=9, hparams=hparams)]
    assert agreement(transform, stored_scale=1, margin=4, seeds=range(6)) >= 0.99


def test_mask_and_image_agree_under_randaugment_with_colours_that_can_still_be_told():
    transform = create_transform(
        96,
        is_training=True,
        color_jitter=None,
        use_prefetcher=True,
        auto_augment='rand-m9-n3-mstd0.5',
        scale=(0.5, 1.0),
    )
    randaugment = transform.transforms[-2]
    randaugment.ops = [op for op in randaugment.ops if op.name in MOVING_OPS | {'AutoContrast', 'Sharpness'}]
    assert agreement(transform, stored_scale=1, margin=5, seeds=range(24)) >= 0.99


POLICIES = ['rand-m9-mstd0.5-inc1', 'rand-m7-n4-mstd101', 'rand-m9-tweights', 'rand-m9-n1-t3aw', 'v0', 'v0r-mstd0.5']
POLICIES += ['original', 'originalr', '3a', 'augmix-m5-w4', 'augmix-m3-d2', 'augmix-m5-b1']


class Watched(Replay):
    """Keeps the numbers that would come next after the label map's way through the transform."""

    def _set_random_state(self, state):
        self.after_mask = random_numbers()
        super()._set_random_state(state)


@pytest.mark.parametrize('policy', POLICIES)
def test_image_and_mask_draw_the_same_numbers_under_every_policy(policy):
    transform = create_transform(
        64, is_training=True, color_jitter=None, auto_augment=policy, vflip=0.5, interpolation='random'
    )
    replay = Watched(transform)
    labels = scene(90, 120, 0)
    for seed in range(40):
        seed_all(seed)
        replay(paint(labels), labels)
        assert random_numbers() == replay.after_mask


@pytest.mark.parametrize('policy', [None, 'rand-m9-mstd0.5-inc1', 'augmix-m5', '3a'])
def test_a_run_with_stored_masks_sees_the_same_images_as_one_without(policy):
    transform = create_transform(
        64, is_training=True, auto_augment=policy, use_prefetcher=True, color_jitter_prob=0.5, grayscale_prob=0.3,
        gaussian_blur_prob=0.3,
    )  # fmt: skip
    with_mask = WithStoredMask(transform, 'segment')
    labels = scene(90, 120, 1)
    picture = paint(labels)
    seed_all(5)
    plain = [transform(picture) for _ in range(20)]
    next_numbers = random_numbers()
    seed_all(5)
    masked = [with_mask(Masked(picture, labels)) for _ in range(20)]
    assert random_numbers() == next_numbers
    for one, other in zip(plain, masked, strict=True):
        assert torch.equal(one, other[:3])


def test_every_operation_of_timms_policies_is_known_to_move_pixels_or_not():
    assert set(auto_augment.NAME_TO_OP) == MOVING_OPS | COLOUR_OPS
    assert not MOVING_OPS & COLOUR_OPS


def test_labels_follow_the_copy_that_shows_most_in_augmix():
    transform = create_transform(64, is_training=True, no_aug=True, use_prefetcher=True)
    flip_like = auto_augment.AugmentOp('TranslateX', prob=1.0, magnitude=10, hparams={'translate_const': 32})
    augmix = auto_augment.AugMixAugment([flip_like], width=1, depth=1)
    transform.transforms.insert(2, augmix)
    labels = np.repeat([[1] * 32 + [2] * 32], 64, axis=0)
    unmoved = 0
    for seed in range(20):
        seed_all(seed)
        np.random.dirichlet([1.0])
        mixed = np.random.beta(1.0, 1.0)
        seed_all(seed)
        _, moved = Replay(transform)(paint(labels), labels)
        stayed = (moved == labels + 1).all()
        unmoved += stayed
        assert stayed == (mixed <= 0.5)  # one copy: it shows as much as the image at a half
        assert stayed or (moved == OUTSIDE).mean() == 0.5
    assert 5 < unmoved < 15


def test_pixels_from_outside_are_a_segment_of_their_own_and_unknown_as_classes():
    moved = np.array([[OUTSIDE, 8], [301, 8]])
    np.testing.assert_array_equal(segment_ids(moved), [[0, 1], [2, 1]])
    small = np.array([[OUTSIDE, 8], [255, 8]], np.uint8)
    np.testing.assert_array_equal(segment_ids(small), small)
    np.testing.assert_array_equal(known_classes(moved), [[255, 7], [300, 7]])


def test_more_than_255_segments_keep_apart_and_are_numbered_anew():
    transform = create_transform(64, is_training=True, no_aug=True, use_prefetcher=True)
    labels = (np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)  # ids up to 65520
    result = WithStoredMask(transform, 'segment')(Masked(Image.new('RGB', (64, 64)), labels))
    _, ids = split_labels(result[None])
    np.testing.assert_array_equal(ids[0], np.arange(4096).reshape(64, 64))


def test_float_images_carry_their_labels_as_exact_floats():
    transform = create_transform(64, is_training=True, no_aug=True)
    labels = np.full((64, 64), 0, np.uint16)
    labels[:, 32:] = 60000
    result = WithStoredMask(transform, 'semantic')(Masked(Image.new('RGB', (64, 64), (255, 0, 0)), labels))
    assert result.dtype == torch.float32
    _, classes = split_labels(result[None])
    np.testing.assert_array_equal(classes[0], labels)
    assert result[0].allclose(torch.tensor((1 - 0.485) / 0.229))


class Swirl:
    def __call__(self, picture):
        return picture


@pytest.mark.parametrize(
    ('steps', 'name'),
    [
        ([Swirl()], 'Swirl'),
        ([transforms.RandomRotation(10)], 'RandomRotation'),
        ([transforms.Resize(8), Swirl()], 'Swirl'),
        ([transforms.Resize(8), transforms.ColorJitter(), transforms.CenterCrop(4)], 'CenterCrop after ColorJitter'),
        ([transforms.Resize(8), transforms.RandomApply([Swirl()])], 'RandomApply'),
    ],
)
def test_a_transform_whose_effect_on_masks_is_not_known_is_refused_by_name(steps, name):
    with pytest.raises(UsageError, match=f'stored masks cannot follow the transform {name}; leave it out'):
        Replay(transforms.Compose(steps))


def cached(root, names_and_pictures) -> tuple[NamedImages, CachedMasks]:
    """Images in class folders, their masks made by the cache, and timm's data set of them."""
    for name, (picture, options) in names_and_pictures.items():
        (root / 'images' / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(root / 'images' / name, **options)
    folders = Folders(str(root / 'images'), str(root / 'masks'))
    source = FelzenszwalbMasks(scale=100, sigma=0, min_size=20)
    claim_folder(folders.masks, describe('fh', source, folders.size_px))
    make_masks(folders, list_images(folders), source, workers=1)
    return NamedImages(ImageDataset(str(root / 'images'))), CachedMasks(folders.masks, folders.images)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def test_rotated_grey_transparent_and_cmyk_photographs_stay_aligned_from_file_to_batch(tmp_path):
    halves = np.zeros((40, 64, 3), np.uint8)
    halves[:, 48:] = 230  # two segments; the border is one between JPEG blocks
    picture = Image.fromarray(halves)
    pictures = {
        'a/plain.png': (picture, {}),
        'a/rotated.jpg': (picture, {'exif': exif(6), 'quality': 95}),
        'a/grey.JPEG': (picture.convert('L'), {'quality': 95}),
        'b/alpha.png': (picture.convert('RGBA'), {}),
        'b/cmyk.jpg': (picture.convert('CMYK'), {'quality': 95}),
        'b/palette.png': (picture.quantize(2), {}),
    }
    dataset = StoredMaskImages(*cached(tmp_path, pictures))
    dataset.transform = create_transform((40, 64), is_training=True, no_aug=True, use_prefetcher=True)
    for index in range(len(pictures)):
        result, target = dataset[index]
        assert target == index // 3
        assert result.shape == (5, 40, 64)
        labels = result[3].numpy()
        assert len(np.unique(labels)) == 2
        bright = result[0].numpy() > 115
        away = inner(bright.astype(int), 2)
        np.testing.assert_array_equal((labels == labels[0, -1])[away], bright[away])


def test_images_of_one_segment_and_of_a_few_pixels_pass(tmp_path):
    pictures = {
        'a/dot.png': (Image.new('RGB', (1, 1), (9, 9, 9)), {}),
        'a/line.png': (Image.new('L', (300, 1), 7), {}),
        'a/plain.png': (Image.new('RGB', (500, 400), (1, 2, 3)), {}),
    }
    dataset = StoredMaskImages(*cached(tmp_path, pictures))
    dataset.transform = create_transform(32, is_training=True, train_crop_mode='rkrc', use_prefetcher=True)
    for index in range(3):
        result, _ = dataset[index]
        assert len(result[3:].flatten(1).unique(dim=1)[0]) == 1


def test_an_unreadable_image_is_left_out_together_with_its_mask(tmp_path):
    for name, level in {'a': 10, 'b': 20, 'c': 30}.items():
        save_labels(tmp_path / f'masks/cat/{name}.png', np.full((8, 8), level))
        (tmp_path / 'images/cat').mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (8, 8), (level,) * 3).save(tmp_path / f'images/cat/{name}.png')
    (tmp_path / 'images/cat/b.png').write_bytes(b'broken')
    images = NamedImages(ImageDataset(str(tmp_path / 'images')))
    dataset = StoredMaskImages(images, FolderMasks(tmp_path / 'masks', tmp_path / 'images', num_labels=99))
    dataset.transform = create_transform(8, is_training=True, no_aug=True, use_prefetcher=True)
    seen = [(int(dataset[index][0][0, 0, 0]), int(dataset[index][0][3, 0, 0])) for index in range(3)]
    assert seen == [(10, 10), (30, 30), (30, 30)]
    assert dataset.skipped == 2


def test_timms_loader_delivers_image_and_mask_from_its_workers(tmp_path):
    pictures = {f'a/{seed}.png': (paint(scene(70, 90, seed)), {}) for seed in range(4)}
    images, masks = cached(tmp_path, pictures)
    dataset = StoredMaskImages(images, masks)
    loader = create_loader(
        dataset, (3, 64, 64), batch_size=2, is_training=True, no_aug=True, num_workers=2, persistent_workers=False,
        device=torch.device('cpu'), mean=(0.0,) * 3, std=(1.0,) * 3,
    )  # fmt: skip
    follow_schedule(loader.dataset, masks)
    extend_normalization(loader)
    for batch, _ in loader:
        image, labels = split_labels(batch)
        for picture, ids in zip((image * 255).round().numpy(), labels.numpy(), strict=True):
            regions = labels_from_colours(picture)
            away = inner(regions, 3)
            pairs = set(zip(regions[away], ids[away], strict=True))
            assert len(pairs) == len(set(regions[away])) == len(set(ids[away]))  # one id a colour


def test_scheduled_image_sizes_take_their_masks_along(tmp_path):
    images, masks = cached(tmp_path, {f'a/{seed}.png': (paint(scene(70, 90, seed)), {}) for seed in range(8)})
    loader = create_loader(
        StoredMaskImages(images, masks), (3, 64, 64), batch_size=2, is_training=True, num_workers=0,
        persistent_workers=False, input_size_choices=[(3, 32, 32), (3, 64, 64)], device=torch.device('cpu'),
    )  # fmt: skip
    follow_schedule(loader.dataset, masks)
    extend_normalization(loader)
    sizes = {tuple(batch.shape[1:]) for batch, _ in loader}
    assert sizes <= {(5, 32, 32), (5, 64, 64)} and sizes


def test_images_that_are_no_files_are_refused(tmp_path):
    images, masks = cached(tmp_path, {'a/0.png': (paint(scene(9, 9, 0)), {})})
    assert has_files(images)
    for other in (AugMixDataset(images), [1, 2]):
        assert not has_files(other)
        with pytest.raises(UsageError, match='stored masks need images that are files in folders'):
            StoredMaskImages(other, masks)
