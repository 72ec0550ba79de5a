"""A run that goes on: what is refused there, and what it says of options that are others than before."""

import shutil

import pytest
import torch

from tests.helpers import REPAINT, fine_tune_here, train_here


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """The whole repaint phase, two of three epochs."""
    return train_here(tmp_path_factory.mktemp('repaint'), *REPAINT, '--epochs', 3)


@pytest.mark.parametrize('how', ['auto', 'path', 'auto, no args.yaml'])
def test_a_run_with_repaints_does_not_go_on_without_them_in_its_folder(run, tmp_path, how):
    shutil.copytree(run, tmp_path / 'run')
    if 'no' in how:
        (tmp_path / 'run' / 'args.yaml').unlink()
    before = {path: path.read_bytes() for path in (tmp_path / 'run').iterdir() if path.is_file()}
    checkpoint = tmp_path / 'run' / 'last.pth.tar' if how == 'path' else 'auto'
    with pytest.raises(SystemExit) as ended:
        train_here(tmp_path, *REPAINT[1:], '--epochs', 4, '--resume', checkpoint)
    assert ended.value.code == (
        f'error: {tmp_path}/run is a run with --repaint, which is not given here: give it, or fine-tune that run with '
        f'timm-repaint fine-tune {tmp_path}/run'
    )
    assert before == {path: path.read_bytes() for path in (tmp_path / 'run').iterdir() if path.is_file()}


def test_options_that_are_not_those_of_before_are_named_where_a_run_goes_on(tmp_path, caplog):
    options = (*REPAINT, '--epochs', 4, '--mask', 'superpixels')
    train_here(tmp_path, *options, '--stop-epoch', 1)
    assert 'goes on' not in caplog.text
    train_here(tmp_path, *options, '--resume', 'auto', '--stop-epoch', 1)
    train_here(tmp_path, *options, '--resume', 'auto', '--stop-epoch', 1, '--lr', 0.4)
    assert 'No epoch is left: 1 are done, 1 are asked for.' in caplog.text and 'other options' not in caplog.text
    train_here(tmp_path, *options, '--resume', 'auto', '--lr', 0.5, '--mask', 'fh', '--seed', 3, '--stop-epoch', 2)
    told = "other options than before (in brackets): --lr 0.5 (0.05), --mask 'fh' ('superpixels'), --seed 3 (42)."
    assert told in caplog.text
    assert "The optimizer's state in the checkpoint overrules --lr; --no-resume-opt starts it afresh." in caplog.text
    caplog.clear()
    train_here(tmp_path, *options, '--resume', 'auto', '--lr', 0.4, '--no-resume-opt')
    assert '--lr 0.4 (0.5)' in caplog.text and 'overrules' not in caplog.text


def test_a_checkpoint_that_is_none_is_told_without_repaint_too(tmp_path):
    (tmp_path / 'run').mkdir()
    torch.save(5, tmp_path / 'run' / 'last.pth.tar')
    with pytest.raises(SystemExit) as ended:
        train_here(tmp_path, *REPAINT[1:], '--epochs', 4, '--resume', 'auto')
    assert f'checkpoint {tmp_path}/run/last.pth.tar does not fit' in ended.value.code


@pytest.mark.parametrize('text', ['lr: "\\e[2J\\nERROR: x"', 'a: &a [1, 1, 1]\nb: &b [*a, *a, *a]\nlr: [*b, *b, *b]'])
def test_options_of_before_that_are_odd_are_told_in_a_short_line(tmp_path, caplog, text):
    run = train_here(tmp_path, *REPAINT, '--epochs', 3, '--stop-epoch', 1)
    (run / 'args.yaml').write_text(text)
    train_here(tmp_path, *REPAINT, '--epochs', 3, '--resume', 'auto')
    (told,) = [message for message in caplog.messages if 'other options' in message]
    assert '--lr 0.05 (' in told and len(told) < 200 and told.isprintable()


def test_a_fine_tuning_that_goes_on_has_the_options_of_before(run, tmp_path, caplog):
    shutil.copytree(run, tmp_path / 'run')
    fine_tune_here(tmp_path / 'run', '--epochs', 4, '--stop-epoch', 3, '--lr', 0.01)
    fine_tune_here(tmp_path / 'run', '--epochs', 4, '--resume', 'auto', '--lr', 0.01)
    assert 'No epoch is left' not in caplog.text and 'other options' not in caplog.text


def test_a_checkpoint_of_another_network_is_told_in_a_line_that_can_be_read(run, tmp_path):
    with pytest.raises(SystemExit) as ended:
        train_here(tmp_path, *REPAINT, '--model', 'test_vit', '--resume', run / 'last.pth.tar', name='vit')
    assert 'does not fit --model test_vit' in ended.value.code and len(ended.value.code) < 600 + len(str(run))
