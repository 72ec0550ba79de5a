"""--train-fraction: equal shares a class, the same images for every run, less in more."""

import numpy as np
import pytest
from PIL import Image

from tests.helpers import load_checkpoint, train_here
from timm_repaint.data.fraction import keep_fraction
from timm_repaint.engine.loaders import build_dataset
from timm_repaint.errors import UsageError
from timm_repaint.options import build_parser


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """20, 10 and 3 training photographs of three classes, one of each for validation."""
    root = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for split, counts in {'train': (20, 10, 3), 'validation': (1, 1, 1)}.items():
        for name, count in zip('abc', counts, strict=True):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                noise = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(noise).save(root / split / name / f'{number}.png')
    return root


def names(images, fraction, *options, training=True):
    """Names of the images of a split, by class."""
    argv = [str(images), '--num-classes', '3', '--train-fraction', str(fraction), *options]
    args = build_parser().parse_args(argv)
    split = 'train' if training else 'validation'
    dataset = build_dataset(args, split, {'input_size': (3, 32, 32)}, is_training=training)
    paths = [dataset.filename(index) for index in range(len(dataset))]
    return {label: {path for path in paths if path.startswith(label)} for label in 'abc'}


def test_each_class_keeps_the_same_share_and_at_least_one_image(images):
    assert [len(kept) for kept in names(images, 0.5).values()] == [10, 5, 2]
    assert [len(kept) for kept in names(images, 0.01).values()] == [1, 1, 1]
    assert [len(kept) for kept in names(images, 1).values()] == [20, 10, 3]


def test_the_seed_does_not_choose_the_images_and_a_smaller_share_is_part_of_a_larger(images):
    half = names(images, 0.5)
    assert half == names(images, 0.5, '--seed', '7', '--repaint')
    assert all(few <= half[label] for label, few in names(images, 0.2).items())
    assert half['a'] != {f'a/{number}.png' for number in range(10)}  # not just the first ones


def test_validation_images_stay_all(images):
    assert [len(kept) for kept in names(images, 0.01, training=False).values()] == [1, 1, 1]


def test_other_data_sets_are_refused():
    args = build_parser().parse_args(['--dataset', 'shapes', '--train-fraction', '0.5'])
    with pytest.raises(UsageError, match='of shapes give --train-num-samples'):
        build_dataset(args, 'train', {'input_size': (3, 32, 32)}, is_training=True)
    with pytest.raises(UsageError, match='needs images that are files in class folders'):
        keep_fraction([0, 1], 0.5)


@pytest.mark.parametrize('mode', [(), ('--repaint', '--repaint-width', '8')], ids=['plain', 'repaint'])
def test_a_run_trains_on_them(images, mode, tmp_path):
    isda = ('--isda', 1, '--smoothing', 0)  # counts the images that it saw
    args = (images, '--num-classes', 3, '--train-fraction', 0.5, '--epochs', 1, '-b', 4, *isda, *mode)
    run = train_here(tmp_path, *args)
    count = load_checkpoint(run / 'last.pth.tar')['task_state']['isda']['count']
    assert count.sum() == 16  # whole batches of the 17
    assert (count <= count.new_tensor([10, 5, 2])).all()
