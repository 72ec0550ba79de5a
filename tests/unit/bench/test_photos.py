"""The bench of photographs: commands, a real run on a few pictures, and the table."""

import csv
import json
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from bench.photos import arms as arms_module
from bench.photos import evaluate
from bench.photos.__main__ import main
from bench.photos.arms import ARMS, Setting
from bench.photos.corruptions import make_corrupted
from bench.photos.runs import Place, leave_result, masks_of, plan_phases, plan_run, read_rows
from bench.photos.table import cell, write_results
from bench.runner import execute_all
from bench.seeds import pd
from tests.helpers import without_padding
from timm_repaint.errors import UsageError


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Two classes of three pictures in each split, and weights of a tiny network of 1,000 classes."""
    rng = np.random.default_rng(0)
    for split in ('train', 'validation', 'art_painting', 'cartoon'):
        for label in ('cat', 'dog'):
            (tmp_path / 'data' / 'pacs' / split / label).mkdir(parents=True)
            for index in range(4):
                pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).resize((64, 64)).save(
                    tmp_path / 'data' / 'pacs' / split / label / f'{index}.png'
                )
    torch.save(timm.create_model('test_resnet').state_dict(), tmp_path / 'weights.pth')
    common = '--model test_resnet --img-size 32 -b 4 -j 0 --device cpu --lr 0.01 --warmup-epochs 0 --epochs 16'
    monkeypatch.setattr('bench.photos.runs.COMMON', common)
    monkeypatch.setitem(arms_module.SETTINGS, 'few', Setting('pacs', ('validation', 'cartoon'), 3))
    return Place(tmp_path / 'data', tmp_path / 'weights.pth', tmp_path / 'out')


@pytest.mark.parametrize(
    ('arm', 'wanted'), [('plain', 1), ('jitter', 1), ('jitter-clean-end', 2), ('repaint', 2), ('repaint-end', 1)]
)
def test_an_arm_with_options_of_its_first_phase_has_two_phases(place, arm, wanted):
    commands = plan_phases(place, 'domain-shift', arm, 3, place.output / 'run')
    assert len(commands) == wanted and all('3' in command for command in commands[:1])
    assert ('--mask-dir' in commands[0]) == arm.startswith('repaint')


@pytest.mark.slow
@pytest.mark.parametrize('arm', ['plain', 'jitter-clean-end', 'repaint', 'augmix'])
def test_a_run_trains_all_epochs_and_is_tested(place, arm):
    masks_of(place, 'few')
    run = plan_run(place, 'few', arm, 1)
    assert [problem for _, problem in execute_all([run], 1, leave_result, afresh=False)] == ['']
    (row,) = read_rows(place.output)
    assert row.keys() == {'setting', 'arm', 'seed', 'validation', 'cartoon', 'seconds'}
    assert run.folder == place.output / 'runs' / f'few-{arm}-seed1'
    last = run.folder / ('fine_tune' if ARMS[arm].first else '.') / 'summary.csv'
    with open(last, newline='') as file:
        assert list(csv.DictReader(file))[-1]['epoch'] == '15'
    assert len(list((place.output / 'images' / 'few' / 'train' / 'cat').iterdir())) == 3
    assert not list(run.folder.rglob('*.pth.tar'))


@pytest.mark.slow
def test_a_finished_run_is_not_done_again(place, monkeypatch, capsys):
    run = plan_run(place, 'few', 'plain', 1)
    run.folder.mkdir(parents=True)
    (run.folder / 'result.json').write_text('{}')
    words = [place.data, '--weights', place.weights, '--output', place.output, '--settings', 'few', '--arms', 'plain']
    monkeypatch.setattr('sys.argv', ['photos', *map(str, words), '--seeds', '1'])
    assert main() == 0
    assert '1 runs, 1 of them done before' in capsys.readouterr().out


def test_a_difference_has_the_interval_of_student_over_the_seeds_of_both():
    plain = pd.Series([10.0, 20.0, 30.0])
    assert cell(pd.Series([11.0, 22.0, 33.0, 99.0]), plain) == '41.2 (+2.0 ± 2.5)'  # 4.302653 / 3**0.5
    assert cell(pd.Series([11.0]), plain) == '11.0 (+1.0)'
    assert cell(plain) == '20.0' and cell(pd.Series([float('nan')]), plain) == '-'


def test_the_table_compares_pairs_of_one_seed(tmp_path):
    common = {'setting': 'domain-shift', 'validation': 80.0, 'cartoon': 30.0, 'seconds': 1}
    rows = [
        {**common, 'arm': 'repaint', 'seed': 0, 'art_painting': 50.0},
        {**common, 'arm': 'repaint', 'seed': 1, 'art_painting': 48.0},
        {**common, 'arm': 'plain', 'seed': 0, 'art_painting': 40.0},
        {**common, 'arm': 'plain', 'seed': 2, 'art_painting': 99.0},
    ]
    write_results(rows, tmp_path)
    text = without_padding((tmp_path / 'table.md').read_text())
    assert '| plain | 0 2 | 80.0 | 69.5 | 30.0 | 49.8 |' in text
    assert '| repaint | 0 1 | 80.0 (+0.0) | 49.0 (+10.0) | 30.0 (+0.0) | 39.5 (+5.0) |' in text


def test_corrupted_photographs_are_made_once_and_tested_as_one_mean(place, monkeypatch, capsys):
    pytest.importorskip('imagecorruptions', reason='its package brings an OpenCV that clashes with that of others')
    corrupted = place.output / 'corrupted'
    make_corrupted(place.data / 'pacs' / 'validation', corrupted, per_class=1)
    pictures = sorted(corrupted.rglob('*.png'))
    assert len(pictures) == 15 * 3 * 2 and Image.open(pictures[0]).size == (146, 146)
    cats = [path for path in pictures if path.parent.name == 'cat']
    assert len({np.asarray(Image.open(path)).tobytes() for path in cats}) == 45
    before = pictures[0].stat().st_mtime_ns
    make_corrupted(place.data / 'pacs' / 'validation', corrupted, per_class=1)
    assert pictures[0].stat().st_mtime_ns == before
    model = timm.create_model('test_resnet', num_classes=2)
    torch.save(model.state_dict(), place.output / 'two.pth')
    out, folder = place.output / 'tests.json', place.data / 'pacs' / 'validation'
    words = [place.output / 'two.pth', 'test_resnet', out, folder, '--img-size', '32', '--corrupted', corrupted]
    monkeypatch.setattr('sys.argv', ['evaluate.py', *map(str, words)])
    evaluate.main()
    found = json.loads(out.read_text())
    assert found.keys() == {'validation', 'corrupted'} and 0 <= found['corrupted'] <= 100


def test_without_the_package_of_corruptions_it_says_what_to_install(place, monkeypatch):
    monkeypatch.setitem(sys.modules, 'imagecorruptions', None)
    with pytest.raises(UsageError, match=r"needs imagecorruptions: pip install '\.\[corruptions\]'"):
        make_corrupted(place.data / 'pacs' / 'validation', place.output)
