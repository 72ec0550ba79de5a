import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import AugMixDataset, ImageDataset, create_loader, create_transform

from tests.helpers import split_labels
from tests.unit.data.scenes import inner, labels_from_colours, paint, scene
from timm_repaint.data.masked import extend_normalization
from timm_repaint.data.named import NamedImages
from timm_repaint.data.replay import OUTSIDE
from timm_repaint.data.shapes import ShapesDataset
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
from timm_repaint.masks.folder import CachedMasks, FolderMasks, OutlineMasks
from timm_repaint.masks.label_png import save_labels
from timm_repaint.masks.manifest import claim_folder, describe


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
    np.testing.assert_array_equal(ids[0], np.arange(4096).reshape(64, 64) % 256)


def test_float_images_carry_their_labels_as_exact_floats():
    transform = create_transform(64, is_training=True, no_aug=True)
    labels = np.full((64, 64), 0, np.uint16)
    labels[:, 32:] = 182
    result = WithStoredMask(transform, 'semantic')(Masked(Image.new('RGB', (64, 64), (255, 0, 0)), labels))
    assert result.dtype == torch.float32
    _, classes = split_labels(result[None])
    np.testing.assert_array_equal(classes[0], labels)
    assert result[0].allclose(torch.tensor((1 - 0.485) / 0.229))


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
        assert result.shape == (4, 40, 64)
        labels = result[3].numpy()
        assert len(np.unique(labels)) == 2
        bright = result[0].numpy() > 115
        away = inner(bright.astype(int), 2)
        np.testing.assert_array_equal((labels == labels[0, -1])[away], bright[away])


def test_outlines_of_the_built_in_shapes_move_with_their_images():
    shapes = ShapesDataset('train', 6)
    images = [np.asarray(shapes[index][0]) for index in range(6)]
    outlines = [shapes.outline(index) for index in range(6)]
    dataset = StoredMaskImages(shapes, OutlineMasks())
    dataset.transform = create_transform(64, is_training=True, no_aug=True, use_prefetcher=True)
    flip = create_transform(
        64, is_training=True, scale=(1, 1), ratio=(1, 1), hflip=1, color_jitter=0, use_prefetcher=True
    )
    for index in range(6):
        result, target = dataset[index]
        assert target == index
        np.testing.assert_array_equal(result[:3].permute(1, 2, 0), images[index])
        np.testing.assert_array_equal(result[3] == result[3].max(), outlines[index] == 1)
    dataset.transform = flip
    for index in range(6):
        labels = dataset[index][0][3]
        np.testing.assert_array_equal(labels == labels.max(), outlines[index][:, ::-1] == 1)


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
    assert sizes <= {(4, 32, 32), (4, 64, 64)} and sizes


def test_images_that_are_no_files_are_refused(tmp_path):
    images, masks = cached(tmp_path, {'a/0.png': (paint(scene(9, 9, 0)), {})})
    assert has_files(images)
    for other in (AugMixDataset(images), [1, 2]):
        assert not has_files(other)
        with pytest.raises(UsageError, match='stored masks need images that are files in folders'):
            StoredMaskImages(other, masks)
