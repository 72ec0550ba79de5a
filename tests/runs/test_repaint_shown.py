"""What a repaint phase shows: galleries, cue conflicts, TensorBoard, W&B, and what it says at its end."""

import io
import re
import sys
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.helpers import (
    REPAINT,
    column,
    read_summary,
    train_here,
)
from timm_repaint.errors import UsageError


def test_galleries_come_at_the_interval(tmp_path):
    run = train_here(tmp_path, *REPAINT, '--epochs', 4, '--repaint-gallery-interval', 2)
    assert {path.name for path in run.glob('gallery-*')} == {'gallery-1.png', 'gallery-2.png'}


def test_cue_conflict_is_measured_at_the_end(tmp_path):
    run = train_here(tmp_path, *REPAINT, '--epochs', 2, '--cue-conflict')
    result = yaml.safe_load((run / 'cue_conflict.json').read_text())
    assert (result['epochs'], result['images']) == (1, 8)
    assert 0 <= result['shape'] <= 100 and 0 <= result['texture'] <= 100


def test_an_unfinished_phase_does_not_send_to_fine_tuning(tmp_path, caplog):
    train_here(tmp_path, *REPAINT, '--epochs', 3, '--stop-epoch', 1)
    assert 'fine_tune.py' not in caplog.text and 'Stopped early: 1 of 3 epochs.' in caplog.text
    train_here(tmp_path, *REPAINT, '--epochs', 3, '--stop-epoch', 2)
    assert 'fine_tune.py' in caplog.text


@pytest.fixture(scope='module')
def shown(tmp_path_factory):
    """One epoch with TensorBoard and, where it is installed, W&B without a network; the run and W&B's folder."""
    folder = tmp_path_factory.mktemp('shown')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('WANDB_MODE', 'offline')
        patch.setenv('WANDB_DIR', str(folder))
        wandb = ('--log-wandb', '--wandb-project', 'tests') if find_spec('wandb') else ()
        run = train_here(folder, *REPAINT, '--epochs', 2, '--log-tensorboard', *wandb)
        if wandb:
            import_module('wandb').finish()
    return run, folder / 'wandb'


def test_tensorboard_has_the_gallery_and_repaints_scalars(shown):
    run, _ = shown
    events = EventAccumulator(str(run / 'tensorboard'), size_guidance={'images': 0})
    events.Reload()
    (image,) = events.Images('repaint/gallery')
    with Image.open(io.BytesIO(image.encoded_image_string)) as picture, Image.open(run / 'gallery-0.png') as gallery:
        assert np.array_equal(np.asarray(picture), np.asarray(gallery))
    (row,) = read_summary(run)
    scalars = {name: events.Scalars(name)[0].value for name in events.Tags()['scalars']}
    assert scalars['repaint/diversity'] == pytest.approx(row['train_diversity'])
    assert scalars['train/loss'] == pytest.approx(row['train_loss'])
    assert scalars['eval/top1'] == pytest.approx(row['eval_top1'])


@pytest.mark.skipif(find_spec('wandb') is None, reason='W&B is not installed')
def test_wandb_has_the_gallery_in_its_offline_folder(shown):
    run, folder = shown
    (picture,) = folder.glob('offline-run-*/files/media/images/repaint/gallery_*.png')
    with Image.open(picture) as logged, Image.open(run / 'gallery-0.png') as gallery:
        assert np.array_equal(np.asarray(logged.convert('RGB')), np.asarray(gallery))
    (records,) = folder.glob('offline-run-*/*.wandb')
    assert all(name in records.read_bytes() for name in (b'train_diversity', b'repaint/diversity', b'eval_top1'))


def test_without_wandb_the_install_line_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'wandb', None)
    with pytest.raises(UsageError, match='pip install wandb'):
        train_here(tmp_path, *REPAINT, '--epochs', 1, '--log-wandb')


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu_the_cpu_is_taken_and_it_says_so(tmp_path, caplog):
    run = train_here(tmp_path, *REPAINT, '--epochs', 1, '--device', 'cuda')
    assert 'torch finds no GPU: training on the CPU' in caplog.text and column(run, 'epoch') == [0]
    assert re.search(r'Epoch 0: top1 \d+\.\d\d, best \d+\.\d\d \(epoch 0\), took 00:\d\d\.', caplog.text)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_several_processes_without_gpus_are_refused_in_one_line(tmp_path, monkeypatch):
    started = {'WORLD_SIZE': 2, 'RANK': 0, 'LOCAL_RANK': 0, 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': 29500}
    for name, value in started.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(UsageError, match='for the CPU give --device cpu'):
        train_here(tmp_path, *REPAINT, '--epochs', 1, '--device', 'cuda')
