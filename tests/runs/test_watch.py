"""The end of an epoch in real runs: what is measured when, of which images, and that training does not notice."""

import math

import numpy as np
import pytest
from PIL import Image

from tests.helpers import (
    REPAINT,
    SCHEDULE,
    TINY,
    column,
    load_checkpoint,
    read_summary,
    run_script,
    same_tensors,
    train_here,
)
from timm_repaint.data import samples as samples_module
from timm_repaint.engine import repaint_watch as watch_module
from timm_repaint.engine.repaint_watch import FreshMasks, RepaintWatch
from timm_repaint.masks.cache import Folders, list_images, make_masks
from timm_repaint.masks.felzenszwalb import FelzenszwalbMasks
from timm_repaint.masks.folder import CachedMasks
from timm_repaint.masks.label_png import save_labels
from timm_repaint.masks.manifest import claim_folder, describe
from timm_repaint.monitor import alarms

LEAKS = ('train_leak_original', 'train_leak_repaint', 'train_leak_swapped')


def leaks(run):
    """Whether each epoch's row has the leak probe's figures: all of them, in percent, or none."""
    rows = read_summary(run)
    found = [[row[name] for name in LEAKS] for row in rows]
    assert all(all(0 <= value <= 100 for value in row) or all(map(math.isnan, row)) for row in found)
    return [not math.isnan(row[0]) for row in found]


def count_pictures(monkeypatch):
    """Counts how often each number of fixed images is loaded."""
    asked, load = [], samples_module.fixed_samples

    def counting(dataset, masks, data_config, count):
        asked.append(count)
        return load(dataset, masks, data_config, count)

    monkeypatch.setattr(watch_module, 'fixed_samples', counting)
    return asked


def test_the_leak_is_probed_at_the_interval_and_at_the_end_of_the_phase_on_images_loaded_once(tmp_path, monkeypatch):
    asked = count_pictures(monkeypatch)
    options = (*REPAINT, '--epochs', 6, '--repaint-epochs', 5, '--repaint-gallery-interval', 2)
    run = train_here(tmp_path, *options)
    assert leaks(run) == [False, True, False, True, True]
    for name in ('diversity', 'distance'):
        assert all(0 < value < 2 for value in column(run, f'train_{name}'))
    assert all(0 <= value <= 100 for value in column(run, 'train_changed_segments'))
    assert asked == [8, 8, 256]  # of 24 training images no more than the gallery's are measured


@pytest.mark.parametrize('options', [(), ('--model-ema', '--mixup', '0.2', '--drop', '0.3')])
def test_a_run_ends_with_the_same_weights_bit_by_bit_as_one_that_nobody_watched(tmp_path, monkeypatch, options):
    args = (*REPAINT, '--epochs', 3, '--repaint-gallery-interval', 1, '--workers', 1, *options)
    watched = train_here(tmp_path, *args, name='watched')
    monkeypatch.setattr(RepaintWatch, 'look', lambda self, run, epoch, discriminator_loss: {})
    alone = train_here(tmp_path, *args, name='alone')
    assert leaks(watched) == [True, True]
    first, second = (load_checkpoint(run / 'last.pth.tar') for run in (watched, alone))
    for key in ('state_dict', 'optimizer', 'repaint'):
        assert same_tensors(first[key], second[key])
    rows = zip(read_summary(watched), read_summary(alone), strict=True)
    assert all({name: ours[name] for name in theirs} == theirs for ours, theirs in rows)


def test_a_run_in_two_parts_has_the_columns_and_probes_of_one(tmp_path):
    args = (*REPAINT, '--epochs', 4, '--repaint-epochs', 3, '--resume', 'auto')
    train_here(tmp_path, *args, '--stop-epoch', 1)
    run = train_here(tmp_path, *args)
    assert leaks(run) == [False, False, True]


def test_without_validation_images_there_is_no_probe(tmp_path):
    run = train_here(tmp_path, *REPAINT, '--epochs', 2, '--val-split', '', '--repaint-gallery-interval', 1)
    assert leaks(run) == [False]
    assert column(run, 'train_diversity')[0] > 0


def test_a_painter_without_a_network_raises_no_alarm(tmp_path, caplog):
    run = train_here(tmp_path, *REPAINT, '--epochs', 2, '--repaint-generator', 'mean')
    assert column(run, 'train_diversity') == [0] and column(run, 'train_distance')[0] > 0
    assert 'collapsed' not in caplog.text


def test_a_warning_comes_once_in_a_run(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(alarms, 'MIN_DIVERSITY', 5)  # more than any two pictures can differ
    run = train_here(tmp_path, *REPAINT, '--epochs', 3)
    assert len(read_summary(run)) == 2
    assert caplog.text.count('The latent has collapsed') == 1


# Stored masks ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    """Two classes of 8 training and 4 validation images of 40 x 48 px, bright on the right."""
    root = tmp_path_factory.mktemp('images')
    rng = np.random.default_rng(0)
    for split, count in (('train', 8), ('validation', 4)):
        for label, name in enumerate(('bird', 'cat')):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                image = rng.integers(0, 60, (40, 48, 3), dtype=np.uint8)
                image[:, (12 + index) :] += np.uint8(120 + 40 * label)
                Image.fromarray(image).save(root / split / name / f'{index}.png')
    return root


def make_cache(images, out):
    folders, source = Folders(str(images), str(out)), FelzenszwalbMasks(scale=90, backend='skimage')
    claim_folder(out, describe('fh', source, folders.size_px))
    make_masks(folders, list_images(folders), source, workers=1)
    return out


def train_on(photographs, output, *options):
    args = ('--num-classes', 2, '--repaint', '--repaint-width', 8, '--epochs', 2)
    return train_here(output, photographs, *args, *options)


def watched_samples(monkeypatch):
    """The fixed images of the runs that follow."""
    seen, load = [], RepaintWatch.fixed_images

    def keeping(watch, run):
        seen.append(load(watch, run))
        return seen[-1]

    monkeypatch.setattr(RepaintWatch, 'fixed_images', keeping)
    return seen


def test_a_cache_that_lacks_the_validation_images_gives_the_masks_of_one_that_has_them(
    photographs, tmp_path, monkeypatch
):
    seen = watched_samples(monkeypatch)
    whole, part = make_cache(photographs, tmp_path / 'whole'), make_cache(photographs / 'train', tmp_path / 'part')
    for name, cache in (('whole', whole), ('part', part)):
        assert leaks(train_on(photographs, tmp_path, '--mask-dir', cache, '--repaint-gallery-interval', 1)) == [True], (
            name
        )
    first, second = (images.unseen for images in seen)
    assert len(first.labels) == 8 and first.targets == second.targets == [0] * 4 + [1] * 4
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(first.labels, second.labels, strict=True))
    assert all(len(np.unique(labels)) > 1 for labels in first.labels)


def test_segments_cut_anew_are_those_of_the_cache(photographs, tmp_path):
    cache = CachedMasks(make_cache(photographs, tmp_path / 'masks'), photographs)
    fresh = FreshMasks(cache)
    for path in (photographs / 'validation').rglob('*.png'):
        assert np.array_equal(fresh.read(path, (40, 48)), cache.read(path, (40, 48)))


@pytest.mark.parametrize('splits', [('train',), ('train', 'validation')])
def test_ones_own_masks_serve_the_probe_if_they_cover_the_validation_images(photographs, tmp_path, caplog, splits):
    masks = tmp_path / 'masks'
    for split in splits:
        for path in (photographs / split).rglob('*.png'):
            target = masks / path.relative_to(photographs)
            target.parent.mkdir(parents=True, exist_ok=True)
            save_labels(target, (np.asarray(Image.open(path)).mean(axis=2) > 90).astype(np.uint16))
    options = ('--mask', 'folder', '--mask-dir', masks, '--mask-classes', 2)
    with caplog.at_level('INFO', logger='timm_repaint'):
        assert leaks(train_on(photographs, tmp_path, *options)) == ['validation' in splits]
    assert ('No leak probe, the validation images have no masks' in caplog.text) == ('validation' not in splits)


def test_of_two_processes_one_measures_and_none_waits(tmp_path):
    launcher = '-m torch.distributed.run --standalone --nproc-per-node 2 train.py'
    options = (*REPAINT, '--train-num-samples', 64, '--epochs', 3, '--repaint-gallery-interval', 1)
    run_script(launcher, *TINY, *SCHEDULE, *options, '--output', tmp_path, '--experiment', 'run')
    run = tmp_path / 'run'
    assert leaks(run) == [True, True]
    assert all(value > 0 for value in column(run, 'train_diversity'))
    assert {path.name for path in run.glob('gallery-*')} == {'gallery-0.png', 'gallery-1.png'}
