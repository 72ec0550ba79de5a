import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_dataset
from torch.utils.data import IterableDataset

from tests.helpers import copy_images
from timm_repaint.data.named import NamedImages
from timm_repaint.data.samples import fixed_samples
from timm_repaint.data.shapes import ShapesDataset
from timm_repaint.engine.loaders import build_dataset
from timm_repaint.masks.choice import MaskOptions, create_mask_source
from timm_repaint.masks.felzenszwalb import FelzenszwalbMasks
from timm_repaint.options import build_parser
from timm_repaint.pictures import to_pm1, to_u8

DATA_CONFIG = {'input_size': (3, 32, 32), 'interpolation': 'bicubic'}
MASKS = FelzenszwalbMasks()


def options(*argv):
    return build_parser().parse_args(['--repaint', *argv])


def random_states():
    return torch.get_rng_state().numpy().tobytes(), np.random.get_state()[1].tobytes(), random.getstate()


def test_every_grey_level_survives_the_way_to_pm1_and_back():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image_u8 = np.stack([levels, 255 - levels, levels.T], axis=2)
    image_pm1 = to_pm1([image_u8])
    assert image_pm1.shape == (1, 3, 16, 16)
    assert image_pm1[0, 0, 0, 0] == -1 and image_pm1[0, 1, 0, 0] == 1
    assert np.array_equal(to_u8(image_pm1[0]), image_u8)


def test_values_beyond_the_range_are_clamped():
    assert to_u8(torch.tensor([-3.0, 0.0, 3.0]).view(3, 1, 1)).tolist() == [[[0, 128, 255]]]


def test_two_calls_give_the_same_images_and_labels_and_draw_no_random_number():
    dataset = ShapesDataset(num_samples=40, image_size=48)
    states = random_states()
    first, second = (fixed_samples(dataset, MASKS, DATA_CONFIG, 8) for _ in range(2))
    assert random_states() == states
    for ours, theirs in ((first.images_u8, second.images_u8), (first.labels, second.labels)):
        assert len(ours) == 8 and all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_data_sets_transform_is_back_afterwards_also_after_an_error(tmp_path):
    dataset = ShapesDataset(num_samples=8, image_size=48)
    dataset.transform = transform = np.asarray
    fixed_samples(dataset, MASKS, DATA_CONFIG, 2)
    assert dataset.transform is transform

    class Broken(ShapesDataset):
        def __getitem__(self, index):
            raise OSError('gone')

    broken = Broken(num_samples=8)
    broken.transform = transform
    with pytest.raises(OSError, match='gone'):
        fixed_samples(broken, MASKS, DATA_CONFIG, 2)
    assert broken.transform is transform


class Numbers:
    """Images that show their own number; a set that repeats its ten classes."""

    transform = None

    def __init__(self, length):
        self.length, self.asked = length, []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.asked.append(index)
        image = Image.fromarray(np.full((32, 32, 3), index % 251, np.uint8))
        return (image if self.transform is None else self.transform(image)), index % 10


def numbers(dataset, count):
    return [int(image[0, 0, 0]) for image in fixed_samples(dataset, MASKS, DATA_CONFIG, count).images_u8]


def test_images_are_spread_over_the_set_and_its_classes():
    assert numbers(Numbers(100), 8) == [0, 13, 27, 40, 54, 67, 81, 94]


def test_a_small_set_gives_what_it_has():
    found = numbers(Numbers(3), 8)
    assert len(found) == 3 and set(found) <= {0, 1, 2}


def test_a_set_that_repeats_its_ten_classes_shows_eight_of_them():
    dataset = Numbers(2000)
    fixed_samples(dataset, MASKS, DATA_CONFIG, 8)
    assert len({index % 10 for index in dataset.asked}) == 8


@pytest.mark.parametrize(('length', 'count'), [(4, 8), (5, 8), (8, 8), (9, 8), (15, 8), (16, 8), (17, 8), (20, 6)])
def test_no_image_comes_twice(length, count):
    found = numbers(Numbers(length), count)
    assert len(found) == len(set(found)) == min(length, count)


def test_a_stream_gives_its_first_images():
    class Stream(IterableDataset):
        transform = None

        def __iter__(self):
            source = Numbers(100)
            source.transform = self.transform
            return (source[index] for index in range(7, 100))

    assert numbers(Stream(), 3) == [7, 8, 9]


def test_photographs_fit_the_input_size_and_have_the_mask_of_what_is_shown(shared_data, tmp_path):
    root = copy_images(shared_data / 'caltech101-20', tmp_path / 'images', 2, {'train': 3})
    args = options('--data-dir', str(root), '--num-classes', '2', '--img-size', '64')
    config = {**DATA_CONFIG, 'input_size': (3, 64, 64)}
    dataset = build_dataset(args, 'train', config, is_training=True)
    assert isinstance(dataset, NamedImages)
    samples = fixed_samples(dataset, create_mask_source(MaskOptions.of(args)), config, 4)
    masks = create_mask_source(MaskOptions.of(args))
    for image_u8, labels in zip(samples.images_u8, samples.labels, strict=True):
        assert image_u8.shape == (64, 64, 3) and image_u8.dtype == np.uint8 and image_u8.std() > 10
        assert np.array_equal(masks(image_u8), labels)
    assert samples.images_pm1.shape == (4, 3, 64, 64) and samples.images_pm1.abs().max() <= 1
    assert samples.label_tensor.shape == (4, 64, 64) and samples.label_tensor.dtype == torch.int64


def test_images_of_timms_own_data_set_are_read_without_its_transform(shared_data):
    dataset = create_dataset('', root=str(shared_data / 'cifar10'), split='train')
    dataset.transform = transform = lambda image: pytest.fail('the training transform was used')
    assert len(fixed_samples(dataset, MASKS, DATA_CONFIG, 4).images_u8) == 4
    assert dataset.transform is transform
