import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import REPO, mtimes, run_script
from tests.runs.masks.cache_command import NAMES, run, run_plainly, write_images
from timm_repaint.claim import differences
from timm_repaint.errors import UsageError
from timm_repaint.masks.cache import Folders, check_cache, list_images, make_masks, read_image
from timm_repaint.masks.felzenszwalb import FelzenszwalbMasks
from timm_repaint.masks.folder import CachedMasks, mask_size
from timm_repaint.masks.label_png import load_labels
from timm_repaint.masks.manifest import claim_folder, describe, read_manifest


def test_masks_mirror_the_images_and_show_their_segments(tmp_path, capsys):
    images = write_images(tmp_path / 'images', NAMES)
    assert run(images, tmp_path / 'masks') == 0
    assert '4 masks made, 0 were there, 0 images failed' in capsys.readouterr().out
    for number, name in enumerate(NAMES):
        labels = load_labels(tmp_path / 'masks' / name)
        right = np.zeros((40, 60), bool)
        right[:, 10 * (number + 1) :] = True
        np.testing.assert_array_equal(labels != labels[0, 0], right)
    files = {str(path.relative_to(tmp_path / 'masks')) for path in (tmp_path / 'masks').rglob('*') if path.is_file()}
    assert files == {*NAMES, 'manifest.json'}


@pytest.mark.parametrize(
    ('image_hw', 'expected'),
    [((40, 60), (40, 60)), ((256, 999), (256, 999)), ((375, 500), (256, 341)), ((500, 375), (341, 256)),
     ((1, 1), (1, 1)), ((512, 1024), (256, 512)), ((1, 5000), (1, 5000))],
)  # fmt: skip
def test_the_shorter_side_of_a_mask_is_at_most_256_and_never_enlarged(image_hw, expected):
    assert mask_size(image_hw, 256) == expected


def test_a_large_image_has_a_small_mask_that_loads_at_the_images_size(tmp_path):
    images = write_images(tmp_path / 'images', ['a.png'], (600, 400))
    assert run(images, tmp_path / 'masks', '--size', 100) == 0
    assert load_labels(tmp_path / 'masks/a.png').shape == (100, 150)
    labels = CachedMasks(tmp_path / 'masks', images).load(images / 'a.png', (400, 600))
    assert labels.shape == (400, 600)
    right = np.zeros((400, 600), bool)
    right[:, 10:] = True
    assert ((labels != labels[0, 0]) == right).mean() > 0.995


def test_an_image_is_seen_as_timm_sees_it_without_exif_rotation(tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6
    (tmp_path / 'images').mkdir()
    Image.new('CMYK', (60, 40)).save(tmp_path / 'images/a.jpg', exif=tags)
    assert read_image(Folders(str(tmp_path / 'images'), ''), 'a.jpg').shape == (40, 60, 3)


def test_imagenet_photographs_need_less_than_8_kilobytes_a_mask(shared_data, tmp_path):
    folders = Folders(str(shared_data / 'imagenet-samples'), str(tmp_path))
    names = list_images(folders)[::4]
    assert make_masks(folders, names, FelzenszwalbMasks(), workers=1).made == len(names) == 10
    assert np.mean([os.path.getsize(folders.mask_path(name)) for name in names]) <= 8 * 1024


def test_coco_works_as_it_lies(shared_data, tmp_path):
    folders = Folders(str(shared_data / 'coco-mini'), str(tmp_path), size_px=32)
    names = list_images(folders)
    source = FelzenszwalbMasks()
    claim_folder(folders.masks, describe('fh', source, 32))
    assert make_masks(folders, names, source, workers=2).made == len(names) == 21
    assert check_cache(folders, names, workers=2).failed == []


class LeftOrRight(torch.nn.Module):
    """Class 1 where the image is red: a network in the place of DeepLab."""

    kind, num_labels, on_device = 'semantic', 2, True

    def __init__(self):
        super().__init__()
        self.threshold = torch.nn.Parameter(torch.zeros(()))
        self.batches: list[tuple[int, ...]] = []

    def labels(self, image_pm1):
        self.batches.append(tuple(image_pm1.shape))
        return (image_pm1[:, 0] > self.threshold).long()


@pytest.mark.parametrize('workers', [1, 2])
def test_a_network_gets_batches_of_one_size_and_each_image_its_own_mask(tmp_path, workers):
    wide = [f'{letter}.png' for letter in 'abcde']
    tall = [f'{letter}.png' for letter in 'vwxyz']
    write_images(tmp_path / 'images', wide, (60, 40))
    write_images(tmp_path / 'images', tall, (52, 64))
    folders = Folders(str(tmp_path / 'images'), str(tmp_path / 'masks'))
    source = LeftOrRight()
    outcome = make_masks(folders, list_images(folders), source, workers, batch_size=2)
    assert (outcome.made, outcome.failed) == (10, [])
    assert sorted(shape[0] for shape in source.batches) == [1, 1, 2, 2, 2, 2]
    assert {shape[1:] for shape in source.batches} == {(3, 40, 60), (3, 64, 52)}
    for names, width in ((wide, 60), (tall, 52)):
        for number, name in enumerate(names):
            labels = load_labels(tmp_path / 'masks' / name)
            np.testing.assert_array_equal(labels[0], np.arange(width) >= 10 * (number + 1))


def test_images_of_many_sizes_do_not_pile_up_in_front_of_a_network(tmp_path):
    for side in range(20, 60):
        write_images(tmp_path / 'images', [f'{side}.png'], (side, 30))
    folders = Folders(str(tmp_path / 'images'), str(tmp_path / 'masks'))
    source = LeftOrRight()
    assert make_masks(folders, list_images(folders), source, workers=1, batch_size=2).made == 40
    assert len(source.batches) == 40  # no two of one size
    assert check_sizes(folders) == 40


def check_sizes(folders: Folders) -> int:
    sizes_equal = [
        load_labels(folders.mask_path(name)).shape == read_image(folders, name).shape[:2]
        for name in list_images(folders)
    ]
    return sum(sizes_equal)


def test_a_second_run_keeps_what_is_there_and_makes_the_rest(tmp_path, capsys):
    images = write_images(tmp_path / 'images', NAMES)
    run(images, tmp_path / 'masks')
    (tmp_path / 'masks' / NAMES[1]).unlink()
    (tmp_path / 'masks' / NAMES[2]).write_bytes(b'')  # what a crash of the machine leaves
    before = mtimes(tmp_path / 'masks')
    capsys.readouterr()
    assert run(images, tmp_path / 'masks') == 0
    assert '2 masks made, 2 were there' in capsys.readouterr().out
    after = mtimes(tmp_path / 'masks')
    assert {name for name in after if after[name] != before.get(name)} == {NAMES[1], NAMES[2]}


@pytest.mark.parametrize(
    ('options', 'difference'),
    [
        (['--mask', 'superpixels'], 'source is fh, not superpixels'),
        (['--size', 200], 'size_px is 256, not 200'),
        (['--fh-scale', 11], r'scale is 10\.0, not 11\.0'),
        (['--fh-min-size', 3, '--fh-sigma', 1], r'min_size is none, not 3; sigma is 0\.0, not 1\.0'),
    ],
)
def test_other_parameters_are_refused_with_what_differs(tmp_path, options, difference):
    images = write_images(tmp_path / 'images', NAMES)
    run(images, tmp_path / 'masks')
    before = mtimes(tmp_path / 'masks')
    with pytest.raises(UsageError, match=f'manifest.json is of others: {difference}; use the same options'):
        run(images, tmp_path / 'masks', *options)
    assert mtimes(tmp_path / 'masks') == before


@pytest.mark.parametrize(
    ('made', 'asked', 'problem'),
    [
        (('--mask', 'superpixels'), ('--mask', 'fh'), 'superpixels with mask superpixels, not fh'),  # the default
        (('--mask', 'superpixels'), ('--fh-scale', 20), 'superpixels with fh-scale None, not 20.0'),
        (('--mask', 'superpixels'), ('--size', 64), 'superpixels with size 256, not 64'),
        (('--fh-scale', 20), ('--fh-scale', 30, '--mask', 'fh'), 'fh with fh-scale 20.0, not 30.0'),
        (('--fh-scale', 20), ('--mask', 'fh', '--fh-backend', 'auto'), ''),
    ],
)
def test_masks_made_otherwise_are_not_checked_for_good(tmp_path, made, asked, problem):
    images, masks = write_images(tmp_path / 'images', NAMES), tmp_path / 'masks'
    assert run_plainly(images, masks, *made) == 0
    with pytest.raises(UsageError, match=f'has masks of {problem}; leave') if problem else nullcontext():
        assert run_plainly(images, masks, '--check', *asked) == 0
    assert run_plainly(images, masks, '--check') == 0
    assert run_plainly(images, masks, '--check', *made) == 0


def test_a_check_leaves_a_new_folder_alone(tmp_path):
    images = write_images(tmp_path / 'images', NAMES)
    with pytest.raises(UsageError, match='make the masks with: timm-repaint masks'):
        run(images, tmp_path / 'masks', '--check', '--mask', 'fh')
    assert not (tmp_path / 'masks').exists()


def test_the_manifest_says_what_was_made_without_any_path(tmp_path):
    run(write_images(tmp_path / 'images', NAMES), tmp_path / 'masks', '--fh-backend', 'skimage', '--size', 64)
    manifest = json.loads((tmp_path / 'masks/manifest.json').read_text())
    assert manifest['parameters'] == {'scale': 10.0, 'sigma': 0.0, 'min_size': None, 'backend': 'skimage'}
    assert (manifest['source'], manifest['kind'], manifest['num_labels'], manifest['size_px']) == (
        'fh',
        'segment',
        None,
        64,
    )
    assert str(tmp_path) not in (tmp_path / 'masks/manifest.json').read_text()


def test_another_version_of_the_package_goes_on_with_an_old_cache(tmp_path):
    images = write_images(tmp_path / 'images', NAMES)
    run(images, tmp_path / 'masks')
    path = tmp_path / 'masks/manifest.json'
    path.write_text(path.read_text().replace('"timm_repaint": "', '"timm_repaint": "9.'))
    assert run(images, tmp_path / 'masks') == 0


def test_another_checkpoint_of_the_same_name_is_another_source(tmp_path):
    manifests = []
    for content in (b'weights', b'other weights'):
        (tmp_path / 'net.pth').write_bytes(content)
        manifests.append(describe('deeplabv2', LeftOrRight(), 256, str(tmp_path / 'net.pth')))
    assert manifests[0].parameters['checkpoint'] == 'net.pth'
    assert [text.split(' is ')[0] for text in differences(*map(asdict, manifests))] == ['checkpoint_sha256']


def test_of_runs_that_start_together_those_with_the_first_ones_options_go_on(tmp_path):
    barrier = threading.Barrier(16)
    outcomes: list[tuple[int, str]] = []

    def start(size_px: int) -> None:
        manifest = describe('fh', FelzenszwalbMasks(), size_px)
        barrier.wait()
        try:
            claim_folder(tmp_path / 'masks', manifest)
            outcomes.append((size_px, 'goes on'))
        except UsageError as error:
            outcomes.append((size_px, 'refused' if 'size_px is' in str(error) else str(error)))

    threads = [threading.Thread(target=start, args=(100 + number % 2,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner = read_manifest(tmp_path / 'masks').size_px
    assert sorted(outcomes) == sorted(
        [(size, 'goes on' if size == winner else 'refused') for size in (100, 101) for _ in range(8)]
    )
    assert os.listdir(tmp_path / 'masks') == ['manifest.json']


def test_shards_that_run_at_the_same_time_make_each_mask_once(tmp_path):
    images = write_images(tmp_path / 'images', [f'cat/{number}.png' for number in range(11)])
    arguments = [sys.executable, '-m', 'timm_repaint.masks', str(images), str(tmp_path / 'masks')]
    runs = [
        subprocess.Popen(
            [*arguments, '--shard', f'{index}/3', '--workers', '1'], cwd=REPO, stdout=subprocess.PIPE, text=True
        )
        for index in (1, 2, 3)
    ]
    said = [process.communicate(timeout=300)[0] for process in runs]
    assert [process.returncode for process in runs] == [0, 0, 0]
    assert [int(text.split()[0]) for text in said] == [4, 4, 3]
    assert run_plainly(images, tmp_path / 'masks', '--check') == 0


@pytest.fixture
def interrupted(tmp_path):
    """The command on 120 noisy images, in a session of its own, once it has made three masks; and its arguments."""
    pictures = np.random.default_rng(0).integers(0, 256, (120, 240, 320, 3), dtype=np.uint8)
    (tmp_path / 'images').mkdir()
    for number, image_u8 in enumerate(pictures):
        Image.fromarray(image_u8).save(tmp_path / f'images/{number}.jpg')
    words = (tmp_path / 'images', tmp_path / 'masks', '--fh-backend', 'skimage', '--workers', '2')
    process = subprocess.Popen(
        [sys.executable, '-m', 'timm_repaint.masks', *map(str, words)],
        cwd=REPO, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while len(list((tmp_path / 'masks').glob('*.png'))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    return process, words


def assert_goes_on(masks, words):
    """Every mask that has its name is whole, and a second call makes the others."""
    made = list(masks.glob('*.png'))
    assert 3 <= len(made) < 120
    for path in made:
        assert load_labels(path).shape == (240, 320)
    done = run_script('-m timm_repaint.masks', *words)
    assert f'{120 - len(made)} masks made, {len(made)} were there' in done.stdout


def test_ctrl_c_leaves_whole_masks_and_the_next_run_goes_on(interrupted, tmp_path):
    process, words = interrupted
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes
    error = process.communicate(timeout=100)[1]
    assert process.returncode == 130
    assert 'interrupted; the same command goes on from here' in error and 'Traceback' not in error
    assert not list((tmp_path / 'masks').glob('.*'))
    assert_goes_on(tmp_path / 'masks', words)


def test_a_killed_command_leaves_whole_masks_and_no_worker_behind(interrupted, tmp_path):
    process, words = interrupted
    process.kill()
    process.communicate(timeout=100)  # until the last of its workers has closed what they share with it
    deadline = time.monotonic() + 20
    while session_lives(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not session_lives(process.pid)
    assert_goes_on(tmp_path / 'masks', words)


def session_lives(pid):
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True
