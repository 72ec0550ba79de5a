"""train.py with masks from a cache, from files and from a network on the device."""

import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import REPO, SCHEDULE, TINY, load_repaint, read_summary, run_script, train_here
from timm_repaint.errors import UsageError
from timm_repaint.masks.deeplab_network import DeepLabV2
from timm_repaint.masks.label_png import load_labels, save_labels

CLASSES = ('bird', 'cat')


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    """Two classes of 16 images of 40 x 48 px, half bright and half dark, for training and 4 for validation."""
    root = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for split, count in (('train', 16), ('validation', 4)):
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                image = rng.integers(0, 60, (40, 48, 3), dtype=np.uint8)
                image[:, (12 + index) :] += np.uint8(120 + 40 * label)
                Image.fromarray(image).save(root / split / name / f'{index}.png')
    return root


@pytest.fixture(scope='module')
def cache(photographs, tmp_path_factory):
    out = tmp_path_factory.mktemp('cache') / 'masks'
    run_script('-m timm_repaint.masks', photographs, out, '--mask', 'fh', '--fh-backend', 'skimage', '--workers', 1)
    return out


def train_on(photographs, output, *options):
    return train_here(
        output, photographs, '--num-classes', 2, '--repaint', '--repaint-width', 8, '--epochs', 2, *options
    )


@pytest.mark.parametrize(
    'options', [(), ('--aa', 'rand-m5-mstd0.5'), ('--train-crop-mode', 'rkrr'), ('--no-prefetcher',)]
)
def test_a_cache_serves_a_run(photographs, cache, tmp_path, options):
    run = train_on(photographs, tmp_path, '--mask', 'fh', '--mask-dir', cache, *options)
    (row,) = read_summary(run)
    assert row['train_g_feat'] > 0 and row['train_diversity'] > 0
    assert (run / 'gallery-0.png').is_file()


def test_a_cache_of_the_training_split_alone_serves_a_run_too(photographs, tmp_path):
    out = tmp_path / 'masks'
    run_script('-m timm_repaint.masks', photographs / 'train', out, '--mask', 'fh', '--workers', 1)
    run = train_on(photographs, tmp_path, '--mask', 'fh', '--mask-dir', out)
    assert read_summary(run)[0]['train_skipped_updates'] == 0


def test_a_network_makes_masks_on_the_device(photographs, tmp_path):
    torch.manual_seed(0)
    net = DeepLabV2(5, blocks=(1, 1, 1, 1), width=8)
    torch.save(net.state_dict(), tmp_path / 'net.pth')
    run = train_on(photographs, tmp_path, '--mask', 'deeplabv2', '--mask-checkpoint', tmp_path / 'net.pth')
    assert read_summary(run)[0]['train_g_feat'] > 0
    assert load_repaint(run / 'last.pth.tar').repainter.config['num_labels'] == 5
    out = tmp_path / 'painted'
    run_script('-m timm_repaint.paint', run, photographs / 'validation', out, '--copies', 1)
    assert len(list(out.rglob('*.png'))) == 8


def test_superpixels_are_cut_on_the_device(photographs, tmp_path):
    run = train_on(photographs, tmp_path, '--mask', 'superpixels')
    (row,) = read_summary(run)
    assert row['train_g_feat'] > 0 and row['train_diversity'] > 0
    assert (run / 'gallery-0.png').is_file()
    masks = tmp_path / 'masks'
    run_script('-m timm_repaint.masks', photographs, masks, '--mask', 'superpixels', '--workers', 1)
    labels = load_labels(masks / 'train' / 'cat' / '7.png')
    assert labels.shape == (40, 48) and labels[20, 2] != labels[20, 45]


@pytest.fixture(scope='module')
def own_masks(photographs, tmp_path_factory):
    """Semantic masks: class 1 where the image is bright, else 0."""
    out = tmp_path_factory.mktemp('own')
    for path in (photographs / 'train').rglob('*.png'):
        target = out / path.relative_to(photographs)
        target.parent.mkdir(parents=True, exist_ok=True)
        save_labels(target, (np.asarray(Image.open(path)).mean(axis=2) > 90).astype(np.uint16))
    return out


@pytest.mark.parametrize('classes', [(), ('--mask-classes', 2)])
def test_ones_own_masks_serve_a_run(photographs, own_masks, tmp_path, classes):
    run = train_on(photographs, tmp_path, '--mask', 'folder', '--mask-dir', own_masks, *classes)
    assert load_repaint(run / 'last.pth.tar').repainter.config['num_labels'] == (2 if classes else None)


def test_data_without_files_get_masks_on_the_fly(cache, tmp_path, caplog):
    shapes = ('--dataset', 'shapes', '--train-num-samples', 24, '--val-num-samples', 8)
    with caplog.at_level('INFO', logger='timm_repaint'):
        train_here(tmp_path, *shapes, '--repaint', '--repaint-width', 8, '--epochs', 2, '--mask-dir', cache)
    assert 'masks are made on the fly' in caplog.text


def test_outlines_serve_a_run_on_the_built_in_shapes(tmp_path):
    shapes = ('--dataset', 'shapes', '--train-num-samples', 24, '--val-num-samples', 8, '--cue-conflict')
    options = ('--repaint', '--repaint-width', 8, '--mask', 'outlines', '--repaint-detail', 'swap')
    run = train_here(tmp_path, *shapes, *options, '--epochs', 2)
    (row,) = read_summary(run)
    assert row['train_g_feat'] > 0 and row['train_diversity'] > 0.1 and row['train_changed_segments'] > 50
    assert row['train_skipped_updates'] == 0 and row['train_leak_original'] >= 0  # validation images have outlines too
    assert (run / 'cue_conflict.json').is_file()


@pytest.fixture(scope='module')
def network_cache(photographs, tmp_path_factory):
    """Masks by a network, and its file."""
    folder = tmp_path_factory.mktemp('network')
    torch.manual_seed(0)
    torch.save(DeepLabV2(5, blocks=(1, 1, 1, 1), width=8).state_dict(), folder / 'net.pth')
    source = ('--mask', 'deeplabv2', '--mask-checkpoint', folder / 'net.pth')
    run_script('-m timm_repaint.masks', photographs, folder / 'masks', *source, '--workers', 1)
    return folder


def test_masks_by_a_network_serve_a_run_from_their_cache_without_the_network(photographs, network_cache, tmp_path):
    run = train_on(photographs, tmp_path, '--mask', 'deeplabv2', '--mask-dir', network_cache / 'masks')
    assert load_repaint(run / 'last.pth.tar').repainter.config['num_labels'] == 5
    assert read_summary(run)[0]['train_leak_repaint'] >= 0  # the validation images have their masks too


def test_a_cache_of_another_network_is_refused(photographs, network_cache, tmp_path):
    options = ('--mask', 'deeplabv2', '--mask-dir', network_cache / 'masks', '--mask-checkpoint', 'other.pth')
    with pytest.raises(UsageError, match=r'was made with --mask-checkpoint net\.pth, not other\.pth'):
        train_on(photographs, tmp_path, *options)


def test_a_cache_of_a_network_of_the_same_name_and_other_weights_is_refused(photographs, network_cache, tmp_path):
    torch.save({}, tmp_path / 'net.pth')
    options = ('--mask', 'deeplabv2', '--mask-dir', network_cache / 'masks', '--mask-checkpoint')
    with pytest.raises(UsageError, match=r'made with a --mask-checkpoint of SHA-256 [0-9a-f]{64}, not [0-9a-f]{64}'):
        train_on(photographs, tmp_path, *options, tmp_path / 'net.pth')
    train_on(photographs, tmp_path, *options, network_cache / 'net.pth')


def test_images_in_a_tar_file_get_masks_on_the_fly(photographs, tmp_path, caplog):
    with tarfile.open(tmp_path / 'train.tar', 'w') as archive:
        archive.add(photographs / 'train', arcname='.')
    with caplog.at_level('INFO', logger='timm_repaint'):
        run = train_on(tmp_path / 'train.tar', tmp_path, '--val-split', '')
    assert read_summary(run)[0]['train_diversity'] > 0
    assert 'Masks of fh are made on the fly' in caplog.text


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--mask', 'folder'), '--mask folder needs --mask-dir'),
        (('--mask', 'deeplabv2'), '--mask deeplabv2 needs --mask-checkpoint'),
        (('--mask', 'deeplabv2', '--mask-dir', 'CACHE'), 'holds masks of fh, --mask is deeplabv2'),
        (('--mask', 'fh', '--mask-dir', 'CACHE', '--fh-scale', 77), 'was made with --fh-scale None, not 77'),
        (('--mask', 'fh', '--mask-dir', 'CACHE', '--fh-sigma', 2), 'was made with --fh-sigma 0.5, not 2.0'),
        (
            ('--mask', 'fh', '--mask-dir', 'CACHE', '--fh-backend', 'opencv'),
            '--fh-backend skimage, not opencv',
        ),
        (('--mask', 'fh', '--mask-dir', 'OWN'), 'manifest.json'),
        (('--mask', 'folder', '--mask-dir', 'nowhere'), 'no mask for'),
    ],
)
def test_masks_that_do_not_fit_stop_the_run_before_it_starts(photographs, cache, own_masks, tmp_path, options, message):
    places = {'CACHE': cache, 'OWN': own_masks}
    with pytest.raises(UsageError, match=message):
        train_on(photographs, tmp_path, *(places.get(option, option) for option in options))
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('workers', [0, 1])
def test_a_bad_mask_is_named_in_one_line(photographs, own_masks, tmp_path, workers):
    bad = tmp_path / 'masks' / 'train'
    for path in (own_masks / 'train').rglob('*.png'):
        target = bad / path.relative_to(own_masks / 'train')
        target.parent.mkdir(parents=True, exist_ok=True)
        save_labels(target, np.asarray(Image.open(path)).astype(np.uint16) + 7)
    args = (*TINY, *SCHEDULE, '--num-classes', 2, '--epochs', 2, '--output', tmp_path, '--experiment', 'run')
    masks = ('--repaint', '--mask', 'folder', '--mask-dir', bad.parent, '--mask-classes', 2)
    done = run_script('train.py', photographs, *args, *masks, '-j', workers, fails=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith('error: mask ') and 'has label' in last and '.png' in last
    assert REPO.name not in last
