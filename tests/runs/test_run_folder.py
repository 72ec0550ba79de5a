"""A run's folder: one run at a time, the files of another one put aside, and nothing lost where it is removed."""

import logging
import multiprocessing
import os
import resource
import shutil
import subprocess

import pytest
import torch

from tests.helpers import REPAINT, SHAPES, column, fine_tune_here, load_checkpoint, mtimes, same_tensors, train_here
from tests.processes import status_of
from timm_repaint.engine.checkpoint import SafeSaver
from timm_repaint.engine.folder_lock import NAME, RunFolder
from timm_repaint.errors import UsageError

LAST = 'last.pth.tar'


def read_all(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# Runs that meet ------------------------------------------------------------------------------------------------------


def test_a_run_in_a_folder_that_is_in_use_is_refused_before_it_writes(tmp_path):
    (tmp_path / 'run').mkdir()
    other = RunFolder(tmp_path / 'run')
    other.take()
    with pytest.raises(UsageError, match='is in use by another run'):
        train_here(tmp_path, *SHAPES, '--epochs', 1)
    assert [path.name for path in (tmp_path / 'run').iterdir()] == [NAME]
    other.release()
    assert NAME not in read_all(train_here(tmp_path, *SHAPES, '--epochs', 1))


def test_a_run_that_does_not_go_on_puts_the_files_of_the_run_before_aside(tmp_path, caplog):
    run = train_here(tmp_path, *REPAINT, '--epochs', 3, '--repaint-epochs', 2)
    fine_tune_here(run)
    (run / 'notes.txt').write_text('mine')
    before = read_all(run)
    train_here(tmp_path, *SHAPES, '--epochs', 1, '--seed', 1)
    assert f'{run} holds another run, and this one does not go on from it: its files are now in {run}/earlier-1.' in (
        caplog.text
    )
    notes = before.pop('notes.txt')
    assert read_all(run / 'earlier-1') == before and (run / 'notes.txt').read_bytes() == notes
    assert column(run / 'earlier-1' / 'fine_tune', 'epoch') == [2] and not (run / 'fine_tune').exists()
    assert column(run, 'epoch') == [0] and not list(run.glob('gallery*'))
    train_here(tmp_path, *SHAPES, '--epochs', 2, '--seed', 1, '--resume', 'auto')
    train_here(tmp_path, *SHAPES, '--epochs', 3, '--seed', 1, '--resume', run / LAST)
    assert column(run, 'epoch') == [0, 1, 2] and not (run / 'earlier-2').exists()


def test_a_run_that_goes_on_from_elsewhere_puts_the_files_of_another_one_aside(tmp_path):
    args = (*SHAPES, '--epochs', 2)
    first = train_here(tmp_path, *args, '--stop-epoch', 1, name='first')
    other = train_here(tmp_path, *args, '--seed', 1, name='other')
    before = read_all(other)
    train_here(tmp_path, *args, '--resume', first / LAST, name='other')
    assert read_all(other / 'earlier-1') == before
    assert column(other, 'epoch') == [1] and not (other / 'checkpoint-0.pth.tar').exists()


def test_a_fine_tuning_of_a_run_that_was_trained_again_starts_anew(tmp_path, caplog):
    options = (*REPAINT, '--epochs', 3, '--repaint-epochs', 2, '--resume', 'auto')
    run = train_here(tmp_path, *options, '--stop-epoch', 2)
    folder = fine_tune_here(run, '--resume', 'auto')
    first = load_checkpoint(folder / LAST)['state_dict']
    done = mtimes(folder)
    fine_tune_here(run, '--resume', 'auto')
    assert mtimes(folder) == done  # finished
    for path in run.glob('*.pth.tar'):  # else the run puts all of it aside
        path.unlink()
    train_here(tmp_path, *options, '--seed', 7)
    fine_tune_here(run, '--resume', 'auto')
    assert f'{run} was trained again since its fine-tuning in {folder} began: it starts anew.' in caplog.text
    assert same_tensors(load_checkpoint(folder / 'earlier-1' / LAST)['state_dict'], first)
    assert not same_tensors(load_checkpoint(folder / LAST)['state_dict'], first)
    done = mtimes(folder)
    fine_tune_here(run, '--resume', 'auto')
    assert mtimes(folder) == done
    (run / LAST).unlink()  # to save room
    fine_tune_here(run, '--resume', 'auto')
    assert mtimes(folder) == done


def test_a_folder_that_is_removed_during_the_run_is_told_and_the_run_goes_on(tmp_path, monkeypatch, caplog):
    from timm_repaint.engine import run as module

    honest = module.train_epoch

    def train_epoch(run, epoch, functions):
        if epoch == 1:
            shutil.rmtree(run.output.folder)
        return honest(run, epoch, functions)

    options = (*SHAPES, '--epochs', 3, '--recovery-interval', 1)
    whole = train_here(tmp_path / 'whole', *options)
    monkeypatch.setattr(module, 'train_epoch', train_epoch)
    run = train_here(tmp_path, *options)
    assert f'{run} was removed while the run writes to it' in caplog.text
    assert same_tensors(*(load_checkpoint(path / LAST)['state_dict'] for path in (run, whole)))
    assert column(run, 'epoch') == [1, 2]
    names = {'args.yaml', 'summary.csv', LAST, 'model_best.pth.tar', 'checkpoint-1.pth.tar', 'checkpoint-2.pth.tar'}
    assert {name for name in read_all(run) if not name.startswith('recovery')} == names


def test_a_kill_before_the_last_words_of_a_finished_run_is_made_good(tmp_path):
    options = (*SHAPES, '--epochs', 1, '--cue-conflict', '--resume', 'auto')
    run = train_here(tmp_path, *options)
    wanted = (run / 'cue_conflict.json').read_text()
    (run / 'cue_conflict.json').unlink()
    (run / 'model_best.pth.tar').unlink()
    before = mtimes(run)
    train_here(tmp_path, *options)
    assert (run / 'cue_conflict.json').read_text() == wanted and (run / 'model_best.pth.tar').is_file()
    assert {name: time for name, time in mtimes(run).items() if name in before} == before


def test_half_a_summary_of_a_killed_run_is_not_in_the_next_ones(tmp_path):
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'summary.csv.part').write_text(
        'epoch,train_loss,eval_loss,eval_top1,eval_top5,lr\r\n0,1,1,1,1,1\r\n'
    )
    assert column(train_here(tmp_path, *SHAPES, '--epochs', 1, '--resume', 'auto'), 'epoch') == [0]


# Disks that refuse ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A folder with room for 3 MB."""
    folder = tmp_path / 'small'
    folder.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', folder], check=False).returncode:
        pytest.skip('only root can mount a small disk')
    yield folder
    subprocess.run(['umount', '-l', folder], check=True)


def test_a_full_disk_is_told_with_its_reason_and_the_checkpoints_of_before_stay(small_disk):
    saver = SafeSaver(torch.nn.Linear(300, 1000), torch.optim.SGD([torch.zeros(1)]), checkpoint_dir=str(small_disk))
    saver.save_checkpoint(0, metric=1.0)
    (small_disk / 'ballast').write_bytes(bytes(1_500_000))
    before = read_all(small_disk)
    with pytest.raises(
        UsageError, match=r'cannot write the checkpoint .*tmp.pth.tar: No space left on device; the ear'
    ):
        saver.save_checkpoint(1, metric=2.0)
    assert read_all(small_disk) == before


def test_a_full_disk_at_the_copy_of_the_best_is_told_where_there_are_no_links(small_disk, monkeypatch):
    monkeypatch.setattr(os, 'link', lambda *paths: (_ for _ in ()).throw(OSError(1, 'no links')))
    saver = SafeSaver(torch.nn.Linear(300, 1000), torch.optim.SGD([torch.zeros(1)]), checkpoint_dir=str(small_disk))
    with pytest.raises(UsageError, match=r'cannot write the checkpoint .*model_best.pth.tar: No space left on device'):
        saver.save_checkpoint(0, metric=1.0)
    assert set(read_all(small_disk)) == {LAST, 'checkpoint-0.pth.tar'}


def test_a_recovery_checkpoint_that_is_saved_again_is_not_deleted(tmp_path):
    saver = SafeSaver(torch.nn.Linear(1, 1), torch.optim.SGD([torch.zeros(1)]), recovery_dir=str(tmp_path))
    for batch, left in ((5, {5}), (7, {5, 7}), (5, {5, 7}), (5, {5, 7}), (9, {5, 9}), (5, {5, 9})):
        saver.save_recovery(0, batch)
        assert {path.name for path in tmp_path.iterdir()} == {f'recovery-0-{number}.pth.tar' for number in left}


def _train_without_room_for_pictures(output):
    limit = 20_000
    from timm_repaint import files

    honest = files.write_whole

    def write_whole(path, *args):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        if str(path).endswith(('png', 'jpg')):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit // 100, before[1]))
        try:
            honest(path, *args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    from timm_repaint.engine import epoch
    from timm_repaint.monitor import gallery

    epoch.write_whole = gallery.write_whole = write_whole
    logging.basicConfig(filename=output / 'log.txt')
    train_here(output, *REPAINT, '--epochs', 1, '--save-images', '--repaint-gallery-interval', 1)


def test_pictures_that_cannot_be_written_do_not_end_a_run(tmp_path):
    process = multiprocessing.get_context('forkserver').Process(
        target=_train_without_room_for_pictures, args=(tmp_path,)
    )
    process.start()
    assert status_of(process) == 0
    run, log = tmp_path / 'run', (tmp_path / 'log.txt').read_text()
    assert f'No gallery of epoch 0: cannot write {run}/gallery-0.png: File too large' in log
    assert f'No picture of batch 0: cannot write {run}/train-batch-0.jpg: File too large' in log
    assert (run / LAST).is_file() and not list(run.glob('*.png')) and not list(run.glob('.*'))
