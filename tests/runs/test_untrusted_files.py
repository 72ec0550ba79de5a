"""Files from others: no pickled object is ever made from a checkpoint, and YAML makes plain values only."""

import os
import shutil

import pytest
import torch

from tests.helpers import REPAINT, SHAPES, call_main, fine_tune_here, load_checkpoint, train_here
from timm_repaint import paint
from timm_repaint.errors import UsageError

NOT_LOADED = 'is not a checkpoint of tensors and plain values; nothing else is loaded, because it could run code'
OPTIONS = {
    'resume': (*SHAPES, '--resume'),
    'resume with repaint': (*REPAINT, '--resume'),
    'initial checkpoint': (*SHAPES, '--initial-checkpoint'),
    'pretrained path': (*SHAPES, '--pretrained', '--pretrained-path'),
    'repaint checkpoint': (*REPAINT, '--repaint-checkpoint'),
}


class MakesFolder:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return train_here(tmp_path_factory.mktemp('repaint'), *REPAINT, '--epochs', 2)


def evil_copy(run, folder, zipped=True):
    """The run with a checkpoint that makes a folder when it is unpickled; the checkpoint and the folder."""
    run, trap = shutil.copytree(run, folder / 'evil'), folder / 'trap'
    checkpoint = {**load_checkpoint(run / 'last.pth.tar'), 'metric': MakesFolder(trap)}
    torch.save(checkpoint, run / 'last.pth.tar', _use_new_zipfile_serialization=zipped)
    return run / 'last.pth.tar', trap


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'old format'])
@pytest.mark.parametrize('option', OPTIONS)
def test_training_refuses_a_checkpoint_that_would_run_code(option, zipped, run, tmp_path):
    path, trap = evil_copy(run, tmp_path, zipped)
    with pytest.raises(UsageError) as refused:
        train_here(tmp_path, *OPTIONS[option], path, '--epochs', 2, name='new')
    assert str(refused.value) == f'{path} {NOT_LOADED}'
    assert not trap.exists() and not (tmp_path / 'new').exists()


def test_fine_tuning_and_painting_refuse_it_too(run, tmp_path):
    path, trap = evil_copy(run, tmp_path)
    with pytest.raises(UsageError, match=NOT_LOADED):
        fine_tune_here(path.parent)
    (tmp_path / 'images').mkdir()
    shutil.copyfile(run / 'gallery-0.png', tmp_path / 'images' / 'a.png')
    with pytest.raises(UsageError, match=NOT_LOADED):
        call_main(paint.main, path, tmp_path / 'images', tmp_path / 'out')
    assert not trap.exists()


def test_the_trap_works(run, tmp_path):
    path, trap = evil_copy(run, tmp_path)
    torch.load(path, weights_only=False)
    assert trap.is_dir()


def test_yaml_that_would_run_code_is_refused(run, tmp_path, capsys):
    trap = tmp_path / 'trap'
    options = tmp_path / 'options.yaml'
    options.write_text(f'epochs: !!python/object/apply:os.mkdir [{trap}]\n')
    with pytest.raises(SystemExit):
        train_here(tmp_path, '-c', options, *SHAPES)
    assert 'options.yaml' in capsys.readouterr().err
    copied = shutil.copytree(run, tmp_path / 'copy')
    with open(copied / 'args.yaml', 'a') as file:
        file.write(options.read_text())
    with pytest.raises(SystemExit):
        fine_tune_here(copied)
    assert 'args.yaml is not YAML: could not determine a constructor' in capsys.readouterr().err
    assert not trap.exists()
