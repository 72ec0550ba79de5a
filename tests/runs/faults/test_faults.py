"""Kills, signals, full and read-only disks at moments that a seed chooses: each work goes on to the same result.

Ten seeds run with the fast tests. Two hundred by hand:

    python -m pytest -m slow tests/runs/faults
"""

import json
import os
import shutil

import pytest

from tests.runs.faults.bed import KINDS, WORKS, fault_of, run_whole, try_fault
from timm_repaint.data.shapes import ShapesDataset

FAST = range(10)
ALL = range(200)


@pytest.fixture(scope='module')
def inputs(shared_data, tmp_path_factory):
    """Images, a few COCO photographs, and both phases' runs to go on from."""
    folder = tmp_path_factory.mktemp('inputs')
    for index in range(6):
        path = folder / 'images' / f'{index % 2}' / f'{index}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        ShapesDataset(image_size=48)[index][0].save(path)
    for split, count in {'train': 4, 'val': 2}.items():
        copy_coco(shared_data / 'coco-mini', folder / 'coco', f'{split}2017', count)
    return folder


def copy_coco(source, target, split, count):
    """The first images of a split, and what is said of them."""
    content = json.loads((source / 'annotations' / f'instances_{split}.json').read_text())
    content['images'] = sorted(content['images'], key=lambda image: image['file_name'])[:count]
    ids = {image['id'] for image in content['images']}
    content['annotations'] = [one for one in content['annotations'] if one['image_id'] in ids]
    for folder in ('annotations', split):
        (target / folder).mkdir(parents=True, exist_ok=True)
    (target / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))
    for image in content['images']:
        shutil.copyfile(source / split / image['file_name'], target / split / image['file_name'])


@pytest.fixture(scope='module')
def whole(inputs, tmp_path_factory):
    """The undisturbed run of a work, made when it is asked for."""
    made = {}

    def find(name):
        if 'train' not in made and name in ('fine-tune', 'paint', 'train'):
            made['train'] = run_whole('train', inputs, inputs / 'trained')
        if name not in made:
            made[name] = run_whole(name, inputs, tmp_path_factory.mktemp('whole') / 'out')
        return made[name]

    return find


def check(seed, inputs, whole, folder):
    work, fault = fault_of(seed)
    if fault.kind == 'full' and os.geteuid():
        pytest.skip('only root can make a small disk')
    ended = try_fault(work, fault, inputs, folder, whole(work))
    print(f'{seed}: {work}, {fault.kind} at {fault.share:.2f} of process {fault.rank}: ended with {ended}')


def test_ten_seeds_have_all_works_and_all_kinds():
    tried = [fault_of(seed) for seed in FAST]
    assert {work for work, _ in tried} == set(WORKS) and {fault.kind for _, fault in tried} == set(KINDS)
    tried = [(work, fault.kind) for work, fault in map(fault_of, ALL)]
    assert len(set(tried)) == len(WORKS) * len(KINDS)


@pytest.mark.parametrize('seed', FAST)
def test_a_fault_changes_nothing_in_the_end(seed, inputs, whole, tmp_path):
    check(seed, inputs, whole, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('seed', ALL[len(FAST) :])
def test_no_fault_of_two_hundred_changes_anything_in_the_end(seed, inputs, whole, tmp_path):
    check(seed, inputs, whole, tmp_path)
