"""A run that was stopped and resumed ends as one that was not, bit by bit: weights, summary and gallery."""

import shutil

import pytest
from PIL import Image, ImageChops

from tests.helpers import (
    REPAINT,
    SHAPES,
    column,
    fine_tune_here,
    load_checkpoint,
    load_repaint,
    read_summary,
    same_tensors,
    train_here,
)
from tests.tiny import adam_steps

pytestmark = pytest.mark.device('cpu')  # bit by bit, which a GPU's sums are not

LEARNED = ('epoch', 'state_dict', 'state_dict_ema', 'optimizer', 'task_state', 'repaint')
EPOCHS = ('--epochs', 6, '--repaint-epochs', 4, '--repaint-gallery-interval', 1)
# 48 images are 6 batches: updates of two batches each, D+T, D+T, E+G.
OPTIONS = (
    *REPAINT, '--train-num-samples', 48, *EPOCHS, '-j', 2, '--opt', 'adamw', '--lr', '0.002', '--grad-accum-steps', 2,
    '--mixup', '0.4', '--cutmix', '1.0', '--reprob', '0.5', '--aa', 'rand-m9-mstd0.5', '--drop', '0.1',
    '--model-ema', '--model-ema-decay', '0.9', '--warmup-epochs', 1,
)  # fmt: skip


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Four repaint epochs in one process."""
    return train_here(tmp_path_factory.mktemp('whole'), *OPTIONS)


@pytest.fixture(scope='module')
def stopped(tmp_path_factory):
    """The first two of them."""
    return train_here(tmp_path_factory.mktemp('stopped'), *OPTIONS, '--stop-epoch', 2)


def copy_of(run, folder):
    """The run in another output folder."""
    return shutil.copytree(run, folder / run.name)


def learned(run):
    """All weights, averages and optimizer states of a run's last checkpoint."""
    checkpoint = load_checkpoint(run / 'last.pth.tar')
    return {key: checkpoint.get(key) for key in LEARNED}


def assert_same(run, whole):
    assert same_tensors(learned(run), learned(whole))
    assert (run / 'summary.csv').read_bytes() == (whole / 'summary.csv').read_bytes()
    galleries = {path.name for path in whole.glob('gallery-*.png')}
    assert {path.name for path in run.glob('gallery-*.png')} >= galleries
    for name in galleries:
        with Image.open(run / name) as ours, Image.open(whole / name) as theirs:
            assert ImageChops.difference(ours, theirs).getbbox() is None


def test_the_run_uses_all_that_has_a_state(whole):
    repaint = load_repaint(whole / 'last.pth.tar')
    assert repaint.discriminator is not None and set(repaint.optimizers) == {'generator', 'discriminator'}
    assert (repaint.updates, adam_steps(repaint)) == (12, (12, 4))
    assert any(name.startswith('repainter.') for name in learned(whole)['repaint'])
    assert learned(whole)['state_dict_ema'] and 'exp_avg' in learned(whole)['optimizer']['state'][0]
    assert column(whole, 'epoch') == [0, 1, 2, 3]
    assert len(list(whole.glob('gallery-*.png'))) == 4
    assert len({row['train_loss'] for row in read_summary(whole)}) == 4


def test_resume_auto_ends_bit_by_bit_as_the_whole_run(stopped, whole, tmp_path):
    copy_of(stopped, tmp_path)
    assert_same(train_here(tmp_path, *OPTIONS, '--resume', 'auto'), whole)


def test_resume_from_a_file_ends_bit_by_bit_as_the_whole_run(stopped, whole, tmp_path):
    run = copy_of(stopped, tmp_path)
    assert_same(train_here(tmp_path, *OPTIONS, '--resume', run / 'last.pth.tar'), whole)


def test_the_average_of_weights_in_bfloat16_goes_on_bit_by_bit(tmp_path):
    args = (*REPAINT, '--epochs', 2, '--repaint-epochs', 2, '--model-ema', '--model-dtype', 'bfloat16')
    whole = train_here(tmp_path / 'whole', *args)
    for more in ((), ('--resume', 'auto')):
        run = train_here(tmp_path / 'parts', *args, '--stop-epoch', 2 if more else 1, *more)
    assert same_tensors(learned(run), learned(whole))


def test_another_seed_is_another_run(stopped, whole, tmp_path):
    copy_of(stopped, tmp_path)
    run = train_here(tmp_path, *OPTIONS, '--resume', 'auto', '--seed', 7)
    assert column(run, 'train_loss')[:2] == column(whole, 'train_loss')[:2]
    assert column(run, 'train_loss')[2] != column(whole, 'train_loss')[2]


def test_the_fine_tune_phase_resumes_bit_by_bit(whole, tmp_path):
    once, twice = (copy_of(whole, tmp_path / name) for name in ('once', 'twice'))
    fine_tune_here(once)
    fine_tune_here(twice, '--stop-epoch', 5)
    assert column(twice / 'fine_tune', 'epoch') == [4]
    fine_tune_here(twice, '--resume', 'auto')
    assert column(twice / 'fine_tune', 'epoch') == [4, 5]
    assert_same(twice / 'fine_tune', once / 'fine_tune')


def test_a_recovery_checkpoint_goes_on_with_the_next_epoch_and_resume_auto_does_its_epoch_again(tmp_path):
    args = (*REPAINT, '--epochs', 3, '--repaint-epochs', 3)
    whole = train_here(tmp_path / 'whole', *args)
    stopped = train_here(tmp_path, *args, '--stop-epoch', 2, '--recovery-interval', 2)
    recovery = stopped / 'recovery-1-1.pth.tar'
    files = (stopped / 'checkpoint-0.pth.tar', recovery, stopped / 'last.pth.tar')
    assert [adam_steps(load_repaint(path))[0] for path in files] == [3, 5, 6]
    by_hand = copy_of(stopped, tmp_path / 'by hand')
    again = train_here(tmp_path / 'by hand', *args, '--resume', by_hand / recovery.name)
    assert column(again, 'epoch') == [0, 1, 2]
    shutil.copyfile(stopped / 'checkpoint-0.pth.tar', stopped / 'last.pth.tar')  # as if stopped at the recovery point
    assert_same(train_here(tmp_path, *args, '--resume', 'auto'), whole)


def test_options_whose_state_is_in_no_checkpoint_are_named(tmp_path, caplog):
    train_here(tmp_path, *REPAINT, '--epochs', 1, '--use-multi-epochs-loader')
    assert '--use-multi-epochs-loader reads ahead of the epoch' in caplog.text


def test_without_repaint_nothing_is_seeded_anew(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr('timm_repaint.engine.run.seed_epoch', refuse)
    train_here(tmp_path, *SHAPES, '--epochs', 1)
