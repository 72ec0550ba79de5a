"""Options that went away: files of old runs with them at their defaults are taken with a word, others are refused."""

import re
import shutil
from itertools import product

import pytest
import yaml

from tests.helpers import REPAINT, column, fine_tune_here, run_script, train_here
from timm_repaint import paint
from timm_repaint.data.shapes import ShapesDataset
from timm_repaint.errors import UsageError
from timm_repaint.options import build_config_parser, build_parser, parse_args
from timm_repaint.options.bases import REMOVED, drop_removed
from timm_repaint.report.finished import report_gallery, report_leak

DEFAULTS = {'repaint_split_bn': False, 'repaint_rec_weight': 0.0, 'mask_multi_scale': False}
OTHERS = {'repaint_split_bn': True, 'repaint_rec_weight': 10.0, 'mask_multi_scale': True}
WORD = 'has options that went away, at their defaults: repaint_split_bn, repaint_rec_weight, mask_multi_scale.'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A complete repaint phase, one of two epochs."""
    return train_here(tmp_path_factory.mktemp('repaint'), *REPAINT, '--epochs', 2)


@pytest.fixture
def old_run(run, tmp_path):
    """Makes a copy of the run whose file of options has those that went away, at given values."""

    def make(**values):
        folder = tmp_path / 'old'
        shutil.copytree(run, folder)
        options = yaml.safe_load((folder / 'args.yaml').read_text())
        (folder / 'args.yaml').write_text(yaml.safe_dump({**options, **DEFAULTS, **values}))
        return folder

    return make


def train_again(folder):
    train_here(folder.parent, '-c', folder / 'args.yaml', name='again')
    assert column(folder.parent / 'again', 'train_loss') == column(folder, 'train_loss')


def paint_one(folder):
    (folder.parent / 'images').mkdir()
    ShapesDataset(image_size=40)[0][0].save(folder.parent / 'images' / 'a.png')
    images, out = folder.parent / 'images', folder.parent / 'painted'
    assert paint.main([str(folder), str(images), str(out), '--copies', '1', '--device', 'cpu']) == 0
    assert (out / 'a-1.png').is_file()


def fine_tune(folder):
    assert column(fine_tune_here(folder), 'epoch') == [1]


COMMANDS = {
    'train.py -c': train_again,
    'fine_tune.py': fine_tune,
    'report gallery': lambda folder: report_gallery(folder, folder / 'sheet.png', 'cpu', images=2, copies=1),
    'report leak': lambda folder: report_leak(folder, 'cpu'),
    'paint': paint_one,
}


def test_these_options_went_away():
    assert REMOVED == DEFAULTS
    assert not set(REMOVED) & set(vars(build_parser().parse_args([])))


@pytest.mark.parametrize('command', COMMANDS.values(), ids=COMMANDS.keys())
def test_a_file_of_an_old_run_at_the_defaults_is_taken_with_a_word(command, old_run, caplog):
    folder = old_run()
    with caplog.at_level('INFO', logger='timm_repaint'):
        command(folder)
    assert f'{folder / "args.yaml"} {WORD}' in caplog.text


@pytest.mark.parametrize(('command', 'name'), list(product(COMMANDS, REMOVED)))
def test_another_value_is_refused_in_one_line_with_option_and_file(command, name, old_run, capsys):
    folder = old_run(**{name: OTHERS[name]})
    with pytest.raises((UsageError, SystemExit)) as stop:
        COMMANDS[command](folder)
    # The parser tells it itself, and ends with status 2.
    told = str(stop.value) if isinstance(stop.value, UsageError) else capsys.readouterr().err.splitlines()[-1]
    assert f'{folder / "args.yaml"} has {name}: {OTHERS[name]}, an option that went away' in told
    assert '\n' not in told and isinstance(stop.value, UsageError) | (getattr(stop.value, 'code', None) == 2)


def test_the_script_ends_with_that_line(old_run):
    path = old_run(repaint_rec_weight=10.0) / 'args.yaml'
    done = run_script('train.py', '-c', path, fails=True)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert f'{path} has repaint_rec_weight: 10.0, an option that went away' in done.stderr.splitlines()[-1]


def test_on_the_command_line_they_are_unknown(capsys):
    for flag in ('--repaint-split-bn', '--repaint-rec-weight=10', '--mask-multi-scale'):
        with pytest.raises(SystemExit):
            build_parser().parse_args([flag])
        assert re.search(rf'unrecognized arguments: {flag}', capsys.readouterr().err)


def test_all_spellings_of_a_file_are_known_and_the_rest_stays():
    given = {'repaint-split-bn': False, '--repaint-rec-weight': 0, 'mask_multi_scale': None, 'lr': 0.1, 'img-size': 32}
    assert drop_removed(given, 'args.yaml') == {'lr': 0.1, 'img-size': 32}
    with pytest.raises(UsageError, match=r'args\.yaml has repaint_split_bn: True'):
        drop_removed({'repaint-split-bn': True}, 'args.yaml')


def test_a_file_without_them_is_taken_without_a_word(tmp_path, caplog):
    (tmp_path / 'recipe.yaml').write_text('repaint: true\nlr: 0.1\n')
    with caplog.at_level('INFO', logger='timm_repaint'):
        args, _ = parse_args(build_parser(), build_config_parser(), ['-c', str(tmp_path / 'recipe.yaml')])
    assert args.lr == 0.1 and not caplog.messages
