"""Data that the bench of photographs is given: what it reads of it, and what it refuses before anything trains."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from bench.photos.arms import SETTINGS
from bench.photos.conflict import make_conflicts
from bench.photos.data import check_boxes, check_photographs, check_setting, photographs_of, read_split
from bench.photos.evaluate import top1
from bench.photos.runs import Place, images_of, plan_run, without
from bench.runner import RESULT, execute_all
from timm_repaint.errors import UsageError

CLASSES = ('ant', 'bee', 'cow', 'dog')


@pytest.fixture
def data(tmp_path) -> Path:
    """Four classes of ten pictures of random colours, in three splits, and in one more three of the classes."""
    rng = np.random.default_rng(0)
    for split in ('train', 'validation', 'sketch', 'few'):
        for label in CLASSES[split == 'few' :]:
            folder = tmp_path / 'data' / 'pacs' / split / label
            folder.mkdir(parents=True)
            for index in range(10):
                pixels = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
                Image.fromarray(pixels).resize((40, 40)).save(folder / f'{index}.png')
    return tmp_path / 'data'


def test_a_split_has_the_numbers_of_the_training_photographs(data):
    numbers = read_split(data / 'pacs' / 'train').reader.class_to_idx
    few = read_split(data / 'pacs' / 'few', numbers)
    assert numbers == {'ant': 0, 'bee': 1, 'cow': 2, 'dog': 3}
    assert [few[index][1] for index in range(len(few))] == [1] * 10 + [2] * 10 + [3] * 10
    torch.manual_seed(0)
    model = timm.create_model('test_resnet', num_classes=4).eval()
    _, of_classes = top1(model, data / 'pacs' / 'few', numbers, 32)
    _, of_all_classes = top1(model, data / 'pacs' / 'sketch', numbers, 32)
    assert of_classes.keys() == {'bee', 'cow', 'dog'} and of_all_classes.keys() == set(CLASSES)


def test_photographs_of_16_bits_are_tested_as_they_are_trained_on(data):
    folder = data / 'pacs' / 'sketch' / 'ant'
    grey = np.full((40, 40), 100, np.uint16)
    Image.fromarray((grey * 257).astype(np.uint16)).save(folder / '0.png')
    image, _ = read_split(data / 'pacs' / 'sketch')[0]
    assert np.asarray(image).max() == 100


def test_hidden_files_and_others_are_no_photographs(data):
    for name in ('.DS_Store', 'ant/.DS_Store', 'ant/._0.png', 'ant/Thumbs.db', '.ipynb_checkpoints/0.png'):
        path = data / 'pacs' / 'train' / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b'no picture')
    found = photographs_of(data / 'pacs' / 'train')
    assert list(found) == list(CLASSES) and {len(paths) for paths in found.values()} == {10}
    check_photographs(data / 'pacs', None)


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        (lambda folder: shutil.rmtree(folder / 'validation'), 'has no validation/'),
        (lambda folder: (folder / 'sketch').rename(folder / 'corrupted'), 'a column of the results has this name'),
        (lambda folder: (folder / 'sketch' / 'dog').rename(folder / 'sketch' / 'zebra'), 'do not have: zebra'),
        (lambda folder: (folder / 'sketch').rename(folder / 'other domains'), 'a column of the results has this name'),
        (
            lambda folder: shutil.copytree(folder / 'validation' / 'dog', folder / 'train' / 'farm' / 'pig'),
            'has classes in folders of classes: pig; put them side by side',
        ),
        (lambda folder: shutil.rmtree(folder / 'train' / 'dog'), 'has 30 photographs to train on, a batch is of 32'),
    ],
)
def test_photographs_that_cannot_be_trained_or_tested_on_are_refused(data, change, told):
    change(data / 'pacs')
    with pytest.raises(UsageError, match=told):
        check_photographs(data / 'pacs', None)


def test_an_output_is_of_the_data_that_it_began_with(data, tmp_path):
    for _ in range(2):
        check_setting('domain-shift', data, tmp_path / 'out')
    picture = data / 'pacs' / 'sketch' / 'ant' / '0.png'
    Image.new('RGB', (40, 40)).save(picture)
    with pytest.raises(UsageError, match=r'content is .* use the same options, or another folder'):
        check_setting('domain-shift', data, tmp_path / 'out')
    with pytest.raises(UsageError, match='clothing does not exist; the setting clothing-40 needs it'):
        check_setting('clothing-40', data, tmp_path / 'out')


def test_photographs_behind_a_link_are_the_datas_and_hidden_files_are_not(data, tmp_path):
    (data / 'pacs' / 'train').rename(tmp_path / 'elsewhere')
    (data / 'pacs' / 'train').symlink_to(tmp_path / 'elsewhere')
    check_setting('domain-shift', data, tmp_path / 'out')
    (data / 'pacs' / '.DS_Store').write_text('')
    check_setting('domain-shift', data, tmp_path / 'out')
    Image.new('RGB', (40, 40)).save(tmp_path / 'elsewhere' / 'ant' / '0.png')
    with pytest.raises(UsageError, match=r'content is .* use the same options, or another folder'):
        check_setting('domain-shift', data, tmp_path / 'out')


@pytest.fixture
def coco(tmp_path) -> Path:
    """A photograph and a box in each split, with the categories in another order."""
    (tmp_path / 'annotations').mkdir()
    for split, names in (('train', ('cat', 'dog')), ('val', ('dog', 'cat'))):
        categories = [{'id': number, 'name': name} for number, name in enumerate(names)]
        images = [{'id': 1, 'file_name': '1.png', 'height': 40, 'width': 40}]
        boxes = [{'id': 1, 'image_id': 1, 'category_id': 0, 'bbox': [1, 1, 9, 9]}]
        content = {'images': images, 'annotations': boxes, 'categories': categories}
        (tmp_path / 'annotations' / f'instances_{split}2017.json').write_text(json.dumps(content))
        (tmp_path / f'{split}2017').mkdir()
        Image.new('RGB', (40, 40)).save(tmp_path / f'{split}2017' / '1.png')
    return tmp_path


def test_splits_of_boxes_with_other_categories_are_refused(coco):
    with pytest.raises(UsageError, match='their order differs'):
        check_boxes(coco)


def test_boxes_whose_photographs_are_not_there_are_refused(coco):
    (coco / 'val2017' / '1.png').unlink()
    with pytest.raises(UsageError, match=r'1 of 1 images of .*instances_val2017\.json are not there'):
        check_boxes(coco)


def test_a_photograph_that_cannot_be_read_is_named(data, tmp_path):
    path = data / 'pacs' / 'validation' / 'ant' / '0.png'
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UsageError, match=r'cannot read .*validation/ant/0\.png'):
        make_conflicts(data / 'pacs' / 'validation', tmp_path / 'conflicts', per_pair=4)


def test_conflicts_need_more_photographs_than_a_pair_of_classes_takes(data, tmp_path):
    with pytest.raises(UsageError, match=r'needs more than 10 photographs a class in .*: ant, bee, cow, dog'):
        make_conflicts(data / 'pacs' / 'validation', tmp_path / 'conflicts')


def test_finished_runs_that_lack_a_test_are_named(data, tmp_path):
    place = Place(data, tmp_path / 'weights.pth', tmp_path / 'out', corruptions=True)
    run = plan_run(place, 'domain-shift', 'plain', 0)
    run.folder.mkdir(parents=True)
    (run.folder / RESULT).write_text('{"validation": 1}')
    assert without(place, [run]) == [run.name]
    (run.folder / RESULT).write_text('{"validation": 1, "corrupted": 1}')
    assert without(place, [run]) == []


def test_the_first_photographs_of_each_class_are_taken(data, tmp_path):
    (data / 'pacs').rename(data / SETTINGS['clothing-10'].folder)
    place = Place(data, tmp_path / 'weights.pth', tmp_path / 'out')
    for index in range(10, 15):
        shutil.copy(data / 'clothing/train/ant/0.png', data / f'clothing/train/ant/{index}.png')
    taken = photographs_of(images_of(place, 'clothing-10') / 'train')
    assert [path.name for path in taken['ant']] == sorted(f'{index}.png' for index in range(15))[:10]
    data.rename(tmp_path / 'moved')
    moved = images_of(replace(place, data=tmp_path / 'moved'), 'clothing-10')
    assert all(path.is_file() for paths in photographs_of(moved / 'train').values() for path in paths)


def test_the_seconds_of_a_run_are_those_of_all_its_tries(tmp_path):
    taken = []
    for code in ('import time; time.sleep(0.5); raise SystemExit(1)', ''):
        run = SimpleNamespace(name='run', folder=tmp_path, commands=((sys.executable, '-c', code),), needs=None)
        ((_, problem),) = execute_all([run], 1, lambda _, seconds: taken.append(seconds), afresh=False)
        assert bool(problem) == bool(code)
    alone = float((tmp_path / 'seconds.txt').read_text())
    assert taken[0] == pytest.approx(alone, abs=0.1) and taken[0] > 0.5
