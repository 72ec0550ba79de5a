"""Which images the bench's runs see."""

from pathlib import Path

import pytest
from PIL import Image
from timm.data import create_dataset

from bench.evidence.data import RECIPES, choose_images, find_recipe, per_class, plan_subset
from bench.evidence.tree import make_tree
from timm_repaint.data.shapes import CLASSES, ShapesDataset
from timm_repaint.errors import UsageError


def images_of(subset, split):
    """Resolved files behind the links of a split."""
    return {path for name, path in subset.links.items() if Path(name).parts[0] == split and path.is_file()}


def folder_of_images(root, counts, size=(32, 32)):
    """An image folder with `counts[split]` images of each of two classes."""
    for split, count in counts.items():
        for name in ('cat', 'dog'):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                Image.new('RGB', size, (index, 0, 0)).save(root / split / name / f'{index:03}.png')
    return root


@pytest.mark.parametrize('size', [500, 1000])
def test_choices_never_see_an_image_that_a_reported_run_of_the_size_sees(shared_data, size):
    reported, dev = (plan_subset(str(shared_data / 'cifar10'), size, flag) for flag in (False, True))
    train, dev_train, dev_validation = (
        images_of(*key) for key in ((reported, 'train'), (dev, 'train'), (dev, 'validation'))
    )
    assert len(train) == len(dev_train) == size and len(dev_validation) == 1000
    assert not train & dev_train and not train & dev_validation and not dev_train & dev_validation
    assert reported.links['validation'] == shared_data.resolve() / 'cifar10' / 'validation'
    assert all('validation' not in path.parts for path in dev.links.values())
    assert (reported.data, dev.data) == ('cifar10', 'cifar10-dev')


def test_the_first_images_of_each_class_train_and_the_last_hundred_validate_choices():
    images = [Path(f'{index:03}') for index in range(120)]
    assert choose_images(images, 10, False, 'cat') == (images[:10], [])
    assert choose_images(images, 10, True, 'cat') == (images[10:20], images[20:])
    with pytest.raises(UsageError, match=r'cat has 120 images, but 122 are needed \(11 of reported runs, 11 to train'):
        choose_images(images, 11, True, 'cat')
    with pytest.raises(UsageError, match='cat has 120 images, but 121 are needed; give smaller --sizes'):
        choose_images(images, 121, False, 'cat')


def test_timm_reads_the_tree_with_the_classes_of_the_data(tmp_path):
    subset = plan_subset(str(folder_of_images(tmp_path / 'pets', {'train': 5, 'val': 2})), 6, False)
    make_tree(subset, tmp_path / 'out')
    tree = subset.tree(tmp_path / 'out')
    train, validation = (create_dataset('', str(tree), split=split) for split in ('train', 'validation'))
    assert [(train.filename(index), train[index][1]) for index in range(len(train))] == [
        (f'{name}/{index:03}.png', label) for label, name in enumerate(('cat', 'dog')) for index in range(3)
    ]
    assert len(validation) == 4
    assert (subset.num_classes, subset.recipe) == (2, RECIPES / '32px.yaml')


def test_a_tree_is_made_once_and_other_images_are_refused(tmp_path):
    subset = plan_subset(str(folder_of_images(tmp_path / 'a' / 'pets', {'train': 2, 'validation': 1})), 2, False)
    make_tree(subset, tmp_path / 'out')
    before = subset.tree(tmp_path / 'out').stat().st_ctime_ns
    make_tree(subset, tmp_path / 'out')
    assert subset.tree(tmp_path / 'out').stat().st_ctime_ns == before
    other = plan_subset(str(folder_of_images(tmp_path / 'b' / 'pets', {'train': 2, 'validation': 1})), 2, False)
    with pytest.raises(UsageError, match='pets-2 links to other images; give another --output'):
        make_tree(other, tmp_path / 'out')


def test_shapes_are_drawn_while_training(tmp_path):
    subset = plan_subset('shapes', 1000, False)
    make_tree(subset, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert subset.options(tmp_path)[:4] == ['--dataset', 'shapes', '--train-num-samples', '1000']


def test_choices_on_shapes_are_made_on_images_of_another_seed_and_their_cue_conflicts(tmp_path):
    subset = plan_subset('shapes', 20, True)
    make_tree(subset, tmp_path)
    tree = subset.tree(tmp_path)
    assert subset.options(tmp_path)[0] == str(tree)
    assert {path.name: len(list(path.iterdir())) for path in (tree / 'train').iterdir()} == dict.fromkeys(CLASSES, 2)
    expected = ShapesDataset('cue-conflict', 1000, 64, seed=1)
    index = next(index for index in range(1000) if expected.target(index) == 3)
    with Image.open(tree / 'validation' / CLASSES[3] / f'{index:05}.png') as image:
        assert image.tobytes() == expected[index][0].tobytes()


@pytest.mark.parametrize(('side', 'recipe'), [(32, 32), (40, 32), (41, 64), (80, 64), (81, 128), (224, 128)])
def test_the_recipe_follows_the_shorter_side(tmp_path, side, recipe):
    Image.new('RGB', (300, side)).save(tmp_path / 'image.png')
    path = find_recipe(tmp_path / 'image.png')
    assert path.name == f'{recipe}px.yaml' and path.is_file()


def test_sizes_are_the_same_for_each_class():
    assert per_class('photos', 500, 10) == 50
    with pytest.raises(UsageError, match='--sizes 505 cannot be shared evenly by the 10 classes of photos; try 500'):
        per_class('photos', 505, 10)
    with pytest.raises(UsageError, match='try 10'):
        per_class('photos', 4, 10)


def test_folders_that_are_no_data_set_are_refused(tmp_path):
    with pytest.raises(UsageError, match='train does not exist; DATA has train/<class>/<image> and validation/, or is'):
        plan_subset(str(tmp_path / 'nothing'), 2, False)
    folder_of_images(tmp_path / 'pets', {'train': 2})
    with pytest.raises(UsageError, match='has neither validation nor val'):
        plan_subset(str(tmp_path / 'pets'), 2, False)
    (tmp_path / 'pets' / 'val' / 'cow').mkdir(parents=True)
    (tmp_path / 'pets' / 'val' / 'cat').mkdir()
    with pytest.raises(UsageError, match=r'train and .*val have other classes: cow, dog'):
        plan_subset(str(tmp_path / 'pets'), 2, False)
    (tmp_path / 'pets' / 'train' / 'bat').mkdir()
    with pytest.raises(UsageError, match='bat has no images'):
        plan_subset(str(tmp_path / 'pets'), 2, False)
    (tmp_path / 'empty' / 'train').mkdir(parents=True)
    with pytest.raises(UsageError, match='train has no class folders'):
        plan_subset(str(tmp_path / 'empty'), 2, False)


@pytest.mark.parametrize(('size', 'epochs'), [(500, 141), (1000, 100), (5000, 45)])
def test_updates_grow_with_the_square_root_of_the_number_of_images(size, epochs):
    subset = plan_subset('shapes', size, dev=False)
    assert subset.epochs == epochs
    options = subset.options(Path('out'))
    assert options[options.index('--epochs') + 1] == str(epochs)
