"""The bench of photographs: commands, a real run on a few pictures, and the table."""

import csv
import json
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from bench.photos import arms as arms_module
from bench.photos import evaluate
from bench.photos.__main__ import main
from bench.photos.arms import ARMS, NETWORK, SETTINGS, Network, Setting
from bench.photos.conflict import make_conflicts, mix_amplitudes
from bench.photos.corruptions import make_corrupted, make_corrupted_boxes
from bench.photos.runs import Place, claim_run, leave_result, masks_of, plan_phases, plan_run, read_rows
from bench.photos.table import cell, write_results
from bench.runner import execute_all
from bench.seeds import pd
from tests.helpers import without_padding
from timm_repaint.detection.annotations import read_coco
from timm_repaint.detection.options import build_parser, check_detection
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
    monkeypatch.setattr('bench.photos.runs.COMMON', '-b 4 -j 0 --device cpu --warmup-epochs 0 --epochs 16')
    monkeypatch.setattr('bench.photos.data.BATCH', 4)
    monkeypatch.setitem(arms_module.NETWORKS, 'test_resnet', Network('0.01', '--img-size 32'))
    vit = Network('0.01', '--img-size 32 --model-kwargs img_size=32')
    monkeypatch.setitem(arms_module.NETWORKS, 'test_vit', vit)
    monkeypatch.setitem(arms_module.SETTINGS, 'few', Setting('pacs', 3))
    return Place(tmp_path / 'data', tmp_path / 'weights.pth', tmp_path / 'out', network='test_resnet')


@pytest.mark.parametrize(
    ('arm', 'wanted'), [('plain', 1), ('jitter', 1), ('jitter-clean-end', 2), ('repaint', 2), ('consistency-end', 1)]
)
def test_an_arm_with_options_of_its_first_phase_has_two_phases(place, arm, wanted):
    commands = plan_phases(place, 'domain-shift', arm, 3, place.output / 'run')
    assert len(commands) == wanted and all('3' in command for command in commands[:1])
    assert ('--mask-dir' in commands[0]) == arm.startswith(('repaint', 'consistency'))


def test_another_network_has_results_of_its_own_name(place):
    first, other = (
        plan_run(replace(place, network=name), 'domain-shift', 'plain', 0)
        for name in (NETWORK, 'vit_small_patch14_dinov2')
    )
    assert (first.setting, first.name) == ('domain-shift', 'domain-shift-plain-seed0')
    assert other.setting == 'domain-shift-vit_small_patch14_dinov2' and other.name == f'{other.setting}-plain-seed0'
    for command in other.commands:
        assert command[command.index('--model-kwargs') + 1] == 'img_size=98' and '98' in command
        assert 'vit_small_patch14_dinov2' in command and NETWORK not in command


def test_other_numbers_of_epochs_have_results_of_their_own_name_and_the_same_shares_of_phases(place):
    longer = replace(place, network=NETWORK, epochs=24)
    run = plan_run(longer, 'domain-shift', 'jitter-clean-end', 0)
    assert run.name == 'domain-shift-24-epochs-jitter-clean-end-seed0'
    first, last, _ = run.commands
    assert first[first.index('--stop-epoch') + 1] == '18' and '--stop-epoch' not in last
    for command in (first, last, plan_run(longer, 'animals', 'plain', 0).commands[0]):
        assert [command[at + 1] for at, word in enumerate(command) if word == '--epochs'][-1] == '24'
    end = plan_run(longer, 'domain-shift', 'consistency-end', 0).commands[0]
    assert end[end.index('--repaint-epochs') + 1] == '24'


def test_a_detector_trains_with_options_that_it_takes_and_without_validation(place):
    repainted = ['shift', 'repaint', 'shift-both', 'jitter-shift-both']
    assert SETTINGS['animals'].arms == ['plain', 'jitter', *repainted]
    for arm in SETTINGS['animals'].arms:
        first, *others = plan_phases(place, 'animals', arm, 3, place.output / 'run')
        assert first[:3] == ['-m', 'timm_repaint.detection.train', str(place.data / 'animals')]
        parser = build_parser()
        args = parser.parse_args(first[2:])
        check_detection(parser, args)
        assert (args.seed, args.val_split, args.pretrained_backbone_path) == (3, '', str(place.weights))
        assert (args.repaint, args.color_jitter) == (arm not in ('plain', 'jitter'), 0.8 * arm.startswith('jitter'))
        assert args.repaint_generator == ('shift' if 'shift' in arm else 'light')
        assert args.repaint_mix == ('both' if arm.endswith('both') else 'replace')
        assert args.mask_dir == (str(place.output / 'masks' / 'animals') if args.repaint else '')
        assert [command[1] for command in others] == ['timm_repaint.detection.fine_tune'] * args.repaint


def test_a_detector_is_tested_at_the_end_of_its_last_phase(place):
    run = plan_run(place, 'animals', 'plain', 0).folder
    tests = plan_run(replace(place, corruptions=True), 'animals', 'repaint', 0).commands[-1]
    wanted = ['-m', 'bench.photos.evaluate_detector', str(run).replace('plain', 'repaint') + '/fine_tune']
    assert list(tests[1:4]) == wanted and tests[-1] == str(place.output / 'corrupted' / 'animals')
    assert plan_run(place, 'animals', 'plain', 0).commands[-1][3:5] == (str(run), str(run / 'tests.json'))


def test_an_arm_that_a_detector_cannot_train_is_refused(place, monkeypatch, capsys):
    words = [place.data, '--weights', place.weights, '--output', place.output, '--settings', 'animals', '--arms']
    monkeypatch.setattr('sys.argv', ['photos', *map(str, words), 'plain', 'cutmix'])
    with pytest.raises(SystemExit):
        main()
    assert 'cutmix is not for the detector of animals; it takes plain, jitter, shift, ' in capsys.readouterr().err
    monkeypatch.setattr('sys.argv', ['photos', *map(str, words), 'plain', '--model', 'test_resnet'])
    with pytest.raises(SystemExit):
        main()
    assert 'animals has a detector of its own; leave out --model' in capsys.readouterr().err


@pytest.mark.slow
def test_a_detector_trains_both_phases_and_is_tested(place, shared_data, monkeypatch):
    coco = place.data / 'animals'
    shutil.copytree(shared_data / 'coco-mini', coco)
    torch.save(timm.create_model('tf_efficientnet_lite0').state_dict(), place.weights)
    short = '--model tf_efficientdet_lite0 --img-size 128 -b 4 -j 0 --device cpu --lr 1e-3 --warmup-epochs 0 --epochs 4'
    monkeypatch.setattr('bench.photos.runs.DETECTOR', short)
    shutil.copytree(coco, place.output / 'corrupted' / 'animals')
    masks_of(place, 'animals')
    run = plan_run(replace(place, corruptions=True), 'animals', 'shift-both', 0)
    assert [problem for _, problem in execute_all([run], 1, leave_result, afresh=False)] == ['']
    (row,) = read_rows(place.output)
    assert row.keys() == {
        'setting', 'arm', 'seed', 'mAP', 'AP50', 'corrupted mAP', 'corrupted AP50', 'seconds'
    }  # fmt: skip
    assert row['corrupted mAP'] == row['mAP'] <= row['AP50'] <= 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ('arm', 'network'),
    [('plain', 'test_resnet'), ('jitter-clean-end', 'test_resnet'), ('repaint', 'test_vit'), ('augmix', 'test_resnet')],
)
def test_a_run_trains_all_epochs_and_is_tested(place, arm, network):
    place = replace(place, network=network)
    torch.save(timm.create_model(network).state_dict(), place.weights)
    masks_of(place, 'few')
    run = plan_run(place, 'few', arm, 1)
    assert [problem for _, problem in execute_all([run], 1, leave_result, afresh=False)] == ['']
    (row,) = read_rows(place.output)
    assert row.keys() == {'setting', 'arm', 'seed', 'validation', 'art_painting', 'cartoon', 'classes', 'seconds'}
    assert run.folder == place.output / 'runs' / f'few-{network}-{arm}-seed1'
    last = run.folder / ('fine_tune' if ARMS[arm].first else '.') / 'summary.csv'
    with open(last, newline='') as file:
        assert list(csv.DictReader(file))[-1]['epoch'] == '15'
    assert len(list((place.output / 'images' / 'few' / 'train' / 'cat').iterdir())) == 3
    assert not list(run.folder.rglob('*.pth.tar'))


@pytest.mark.slow
def test_a_finished_run_is_not_done_again(place, monkeypatch, capsys):
    run = plan_run(place, 'few', 'plain', 1)
    run.folder.mkdir(parents=True)
    result = {'setting': 'few', 'arm': 'plain', 'seed': 1, 'validation': 50.0, 'seconds': 1}
    (run.folder / 'result.json').write_text(json.dumps(result))
    words = [place.data, '--weights', place.weights, '--output', place.output, '--settings', 'few', '--arms', 'plain']
    monkeypatch.setattr('sys.argv', ['photos', *map(str, words), '--seeds', '1', '1', '--model', 'test_resnet'])
    assert main() == 0
    assert '1 runs, 1 of them done before' in capsys.readouterr().out
    assert 'against plain' in (place.output / 'table.md').read_text()


def test_a_run_does_not_go_on_with_other_options_of_its_arm(place, monkeypatch):
    folders = {}
    for setting in ('few', 'animals'):
        folders[setting] = plan_run(place, setting, 'jitter', 0).folder
        for _ in range(2):
            claim_run(place, setting, 'jitter', folders[setting])
    monkeypatch.setitem(ARMS, 'jitter', replace(ARMS['jitter'], both='--color-jitter 0.1', detector='--no-aug'))
    with pytest.raises(UsageError, match=r'others: both phases is --scale [^;]*, not --color-jitter 0[.]1'):
        claim_run(place, 'few', 'jitter', folders['few'])
    with pytest.raises(UsageError, match=r'both phases is --color-jitter 0[.]8, not --no-aug'):
        claim_run(place, 'animals', 'jitter', folders['animals'])
    earlier = place.output / 'runs' / 'of-an-earlier-version'
    earlier.mkdir()
    (earlier / 'result.json').write_text('{}')
    claim_run(place, 'few', 'jitter', earlier)
    assert [path.name for path in earlier.iterdir()] == ['result.json']


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
    assert not (tmp_path / 'classes.csv').exists()


def test_other_domains_than_these_have_columns_of_their_own(tmp_path):
    common = {'setting': 'domain-shift', 'seed': 0, 'validation': 80.0, 'seconds': 1}
    rows = [
        {**common, 'arm': 'plain', 'sketch': 20.0, 'infograph': 40.0},
        {**common, 'arm': 'repaint', 'sketch': 25.0, 'infograph': 41.0},
        {**common, 'arm': 'jitter', 'sketch': 22.0},
        {**common, 'arm': 'plain', 'setting': 'clothing-40'},
    ]
    write_results(rows, tmp_path)
    header, _, line, *_ = (tmp_path / 'results.csv').read_text().splitlines()
    assert header.startswith('setting,arm,seed,validation,infograph,sketch,corrupted,') and ',80.0,40.0,20.0,' in line
    text = without_padding((tmp_path / 'table.md').read_text())
    assert '| arm | seeds | validation | infograph | sketch | other domains |' in text
    assert '| repaint | 0 | 80.0 (+0.0) | 41.0 (+1.0) | 25.0 (+5.0) | 33.0 (+3.0) |' in text
    assert '| jitter | 0 | 80.0 (+0.0) | - | 22.0 (+2.0) | - |' in text, 'a mean is of all domains or of none'
    assert text.startswith('## clothing-40, against plain\n\n| arm | seeds | validation |\n')


def test_an_arm_is_compared_with_its_crop_alone(tmp_path):
    tops = {'plain': 80.0, 'jitter': 81.0, 'default-aug': 70.0, 'robust': 75.0, 'one of earlier times': 82.0}
    rows = [
        {'setting': 'clothing-40', 'seed': 0, 'arm': arm, 'validation': top, 'seconds': 1} for arm, top in tops.items()
    ]
    write_results(rows, tmp_path)
    half, own = without_padding((tmp_path / 'table.md').read_text()).split('## clothing-40, against default-aug')
    assert '| jitter | 0 | 81.0 (+1.0) |' in half and '| one of earlier times | 0 | 82.0 (+2.0) |' in half
    assert "- `default-aug`: timm's default augmentation" in own and 'default-aug' not in half
    assert '| default-aug | 0 | 70.0 |' in own and '| robust | 0 | 75.0 (+5.0) |' in own


def test_classes_are_set_side_by_side_an_arm_a_column(tmp_path):
    run = {'setting': 'domain-shift', 'seed': 0, 'validation': 75.0, 'seconds': 1}
    of_plain, of_repaint = {'cat': 50.0, 'dog': 100.0}, {'cat': 62.54, 'dog': 87.5}
    rows = [
        {**run, 'arm': 'plain', 'classes': {'validation': of_plain}},
        {**run, 'arm': 'repaint', 'classes': {'validation': of_repaint}},
        {**run, 'arm': 'jitter'},
    ]
    write_results(rows, tmp_path)
    assert (tmp_path / 'classes.csv').read_text().splitlines() == [
        'setting,test,class,seed,plain,repaint',
        'domain-shift,validation,cat,0,50.0,62.5',
        'domain-shift,validation,dog,0,100.0,87.5',
    ]


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
    words = [place.output / 'two.pth', 'test_resnet', folder, out, folder, '--img-size', '32', '--corrupted', corrupted]
    monkeypatch.setattr('sys.argv', ['evaluate', *map(str, words)])
    evaluate.main()
    found = json.loads(out.read_text())
    assert found.keys() == {'validation', 'corrupted', 'classes'} and 0 <= found['corrupted'] <= 100
    of_class = found['classes']['validation']
    assert of_class.keys() == {'cat', 'dog'} and sum(of_class.values()) / 2 == pytest.approx(found['validation'])


def test_without_the_package_of_corruptions_it_says_what_to_install(place, monkeypatch):
    monkeypatch.setitem(sys.modules, 'imagecorruptions', None)
    with pytest.raises(UsageError, match=r"needs imagecorruptions: pip install '\.\[corruptions\]'"):
        make_corrupted(place.data / 'pacs' / 'validation', place.output)


def test_photographs_with_boxes_are_corrupted_once_at_their_size_with_their_boxes(tmp_path, monkeypatch):
    (tmp_path / 'val2017').mkdir()
    (tmp_path / 'annotations').mkdir()
    sides = {'width': 48, 'height': 36}
    images = [{'id': number, 'file_name': f'{number}.jpg', **sides} for number in ('b', 'a')]
    box = {'id': 5, 'image_id': 'a', 'category_id': 1, 'bbox': [1, 1, 4, 3]}
    content = {'images': images, 'annotations': [box], 'categories': [{'id': 1, 'name': 'cat'}]}
    (tmp_path / 'annotations' / 'instances_val2017.json').write_text(json.dumps(content))
    for image in images:
        Image.new('RGB', (48, 36)).save(tmp_path / 'val2017' / image['file_name'])
    kinds = ['fog', 'snow']
    package = SimpleNamespace(
        get_corruption_names=lambda: kinds,
        corrupt=lambda pixels, severity, corruption_name: pixels + severity + kinds.index(corruption_name),
    )
    monkeypatch.setitem(sys.modules, 'imagecorruptions', package)
    make_corrupted_boxes(tmp_path, tmp_path / 'out')
    found = read_coco(str(tmp_path / 'out'), 'val2017')
    assert found.file_names == ('fog/0.png', 'fog/1.png', 'snow/0.png', 'snow/1.png')
    assert [len(found.objects(index)[0]) for index in range(4)] == [0, 1, 0, 1]
    pictures = [Image.open(tmp_path / 'out' / 'val2017' / name) for name in found.file_names]
    assert [picture.getpixel((0, 0)) for picture in pictures] == [(3, 3, 3)] * 2 + [(4, 4, 4)] * 2
    assert {picture.size for picture in pictures} == {(48, 36)}
    monkeypatch.setitem(sys.modules, 'imagecorruptions', None)  # a finished set needs no package
    make_corrupted_boxes(tmp_path, tmp_path / 'out')


def test_conflicts_have_the_edges_of_one_class_and_the_frequencies_of_another(place):
    folder = place.output / 'conflicts' / 'pacs'
    for _ in range(2):
        make_conflicts(place.data / 'pacs' / 'validation', folder, per_pair=2)
    shapes, textures = (sorted((folder / by).rglob('*.png')) for by in ('shape', 'texture'))
    assert len(shapes) == len(textures) == 4
    by_texture = {path.name: path for path in textures}
    for path in shapes:
        shape, texture, _ = path.stem.split('-')
        assert (path.parent.name, by_texture[path.name].parent.name) == (shape, texture) and shape != texture
        assert path.read_bytes() == by_texture[path.name].read_bytes()
    run = plan_run(replace(place, conflicts=True), 'domain-shift', 'plain', 0)
    assert {str(folder / 'shape'), str(folder / 'texture')} <= set(run.commands[-1])
    rows, columns = np.mgrid[:64, :64]
    square = 100.0 + 50 * ((abs(rows - 20) < 8) & (abs(columns - 40) < 8))[..., None].repeat(3, 2)
    stripes = 100.0 + 50 * np.sin(rows)[..., None].repeat(3, 2)
    mixed = mix_amplitudes(square, stripes)
    spectrum = np.abs(np.fft.fft2(mixed[..., 0]))[:32, 0]
    assert spectrum[1:].argmax() == np.abs(np.fft.fft2(stripes[..., 0]))[:32, 0][1:].argmax()
    assert np.array_equal(mix_amplitudes(square, square), square)
