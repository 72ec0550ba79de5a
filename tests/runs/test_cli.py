"""`timm-repaint`: each command is its program, mistakes are one line, and recipes have names."""

import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from runpy import run_module, run_path
from typing import Any

import pytest
import yaml

import timm_repaint
from tests.helpers import SCHEDULE, TINY, column, load_checkpoint
from timm_repaint import cli
from timm_repaint.commands.show_options import value_of
from timm_repaint.commands.write_jobs import SCRIPTS, job_scripts
from timm_repaint.options import build_parser
from timm_repaint.recipes import FOLDER, find_recipe, recipe_names

REPO = Path(__file__).resolve().parents[2]
# What did the same before there were commands; `options`, `push`, `slurm` and `env` are new.
PROGRAMS = {
    'train': 'train.py',
    'fine-tune': 'fine_tune.py',
    'detect train': '-m timm_repaint.detection.train',
    'detect fine-tune': '-m timm_repaint.detection.fine_tune',
    'detect validate': '-m timm_repaint.detection.validate',
    'masks': '-m timm_repaint.masks',
    'paint': '-m timm_repaint.paint',
    'report': '-m timm_repaint.report',
    'benchmark': '-m timm_repaint.benchmark',
    'stylize': '-m timm_repaint.baselines.stylize',
}


def run_cli(*words: object) -> Any:
    """The command in this process; what it ends with. Logging is as before."""
    handlers, level = logging.root.handlers[:], logging.root.level
    with pytest.raises(SystemExit) as stop:
        cli.main(list(map(str, words)))
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    return stop.value.code


def without_program(text: str) -> str:
    """A program's help without its own name, and without the line breaks that hang on the name's length."""
    return ' '.join(re.sub(r'(?m)^usage: .*? (?=\[)', '', text, count=1).split())


@pytest.mark.filterwarnings('ignore:.*found in sys.modules')
@pytest.mark.parametrize('command', PROGRAMS)
def test_the_help_of_each_command_is_that_of_the_program_it_starts(command, capsys, monkeypatch):
    assert run_cli(*command.split(), '--help') == 0
    ours = capsys.readouterr().out
    option, _, module = PROGRAMS[command].partition(' ')
    monkeypatch.setattr('sys.argv', [module or option, '--help'])
    with pytest.raises(SystemExit, match=r'^0$'):
        run_module(module, run_name='__main__') if module else run_path(str(REPO / option), run_name='__main__')
    theirs = capsys.readouterr().out
    assert without_program(ours) == without_program(theirs)
    assert len(theirs) > 200


@pytest.mark.parametrize('command', cli.COMMANDS)
def test_each_program_calls_itself_by_the_command(command, capsys):
    assert run_cli(*command.split(), '--help') == 0
    assert capsys.readouterr().out.startswith(f'usage: timm-repaint {command} [-h]')


def test_all_commands_are_tried_here():
    assert set(cli.COMMANDS) == {*PROGRAMS, 'options', 'push', 'slurm', 'env'}


def test_the_list_of_commands_loads_neither_torch_nor_timm():
    code = 'import sys; from timm_repaint import cli; print(cli.usage()); print({"torch", "timm"} & set(sys.modules))'
    done = subprocess.run([sys.executable, '-c', code], cwd=REPO, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [name for name in cli.COMMANDS if any(line.startswith(f'  {name} ') for line in lines)] == list(cli.COMMANDS)
    assert lines[-1] == 'set()'


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('trian',), "no command is called 'trian'; did you mean train? choose from train, fine-tune, detect train, "),
        (('finetune',), "no command is called 'finetune'; did you mean fine-tune? choose from train, "),
        ((), 'no command is given; choose from train, fine-tune, '),
        (('detect',), "no command is called 'detect'; choose from detect train, detect fine-tune, detect validate"),
        (
            ('detect', 'x'),
            "no command is called 'detect x'; choose from detect train, detect fine-tune, detect validate",
        ),
        (('--verson',), "no command is called '--verson'; choose from train, "),
    ],
)
def test_an_unknown_command_is_told_in_one_line_with_the_choices(words, message, capsys):
    assert run_cli(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'timm-repaint: error: {message}')


def test_help_of_a_group_and_version(capsys):
    assert run_cli('detect', '--help') == 0
    assert 'detect validate' in capsys.readouterr().out
    assert run_cli('--version') == 0
    assert capsys.readouterr().out == f'timm-repaint {timm_repaint.__version__}\n'


@pytest.mark.parametrize('command', ['train', 'fine-tune', 'masks', 'paint', 'stylize', 'options', 'slurm', 'env'])
def test_a_wrong_option_ends_with_the_name_of_the_command(command, capsys):
    assert run_cli(command, '--colour', 1) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f'timm-repaint {command}: error: ')


def test_a_mistake_in_the_data_is_one_line_and_the_command_line_is_as_before(tmp_path):
    before = sys.argv
    code = run_cli('train', tmp_path / 'none', *TINY, '--num-classes', 3, '--output', tmp_path / 'out')
    assert code == f'error: data folder {tmp_path}/none does not exist'
    assert sys.argv is before


# Recipes by name -----------------------------------------------------------------------------------------------------


def test_demo_trains_by_its_name_and_fine_tunes(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    small = ('--epochs', 2, '--train-num-samples', 24, '--val-num-samples', 8, '--repaint-width', 8)
    assert run_cli('train', '-c', 'demo', *TINY, *SCHEDULE, *small, '-vb', 8) == 0
    run = tmp_path / 'output' / 'train' / 'demo'
    assert load_checkpoint(run / 'last.pth.tar')['args'].repaint_gallery_interval == 4  # as the recipe says
    assert caplog.messages[-1].split(None, 1) == ['next', 'timm-repaint fine-tune output/train/demo']
    assert run_cli('fine-tune', 'output/train/demo') == 0
    assert 'Done: 2 of 2 epochs. Best top1' in caplog.text
    assert caplog.messages[-1].split(None, 1) == ['next', 'timm-repaint paint output/train/demo IMAGES REPAINTS']
    assert column(run / 'fine_tune', 'epoch') == [1]


@pytest.mark.parametrize(
    'name', ['demo', 'paper', 'tables/resnet50-repaint', 'tables/detection/efficientdet-d0-repaint']
)
def test_a_recipe_is_found_by_its_name(name):
    assert find_recipe(name) == str(FOLDER / f'{name}.yaml')
    assert name in recipe_names()


def test_a_file_of_that_name_comes_first_and_paths_stay_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'demo').write_text('epochs: 7\n')
    assert find_recipe('demo') == 'demo'
    for path in ('demo.yaml', './paper', '../paper', str(tmp_path / 'paper'), 'tables/../demo', 'paper.yml', ''):
        assert find_recipe(path) == path


@pytest.mark.parametrize(
    ('name', 'wanted'),
    [
        ('demi', 'demo, gentle, paper, robust, shape, and those in mini/, tables/, tables/detection/'),
        ('tables/resnet51', 'tables/resnet50-repaint, '),
        ('other/demo', 'demo, gentle, paper, robust, shape, and those in '),
        ('base/repaint', 'demo, gentle, paper, robust, shape, and those in '),
    ],
)
def test_an_unknown_recipe_is_told_in_one_line_with_those_that_are_there(name, wanted, capsys):
    assert run_cli('train', '-c', name) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    start = 'timm-repaint train: error: argument -c/--config'
    assert line.startswith(f'{start}: there is no file {name}, and no recipe; the recipes are ')
    assert wanted in line and 'slurm' not in line and 'base/,' not in line


# Options, environment, job scripts -----------------------------------------------------------------------------------


def test_the_list_has_every_repaint_option_with_default_and_the_papers_value(capsys):
    assert run_cli('options') == 0
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    groups = [group for group in build_parser()._action_groups if str(group.title).startswith('Repaint')]
    assert set(lines) == {'option'} | {action.option_strings[0] for group in groups for action in group._group_actions}
    assert lines['--repaint-prob'] == ['0.5', '1']
    assert lines['--repaint-g-lr'] == ['0.001', '1e-4']
    assert lines['--repaint-epochs'] == ['150', 'of', '200']


@pytest.mark.parametrize(
    ('recipe', 'name', 'value'),
    [
        ('paper', 'repaint_prob', '1.0'),
        ('paper', 'repaint-separate-batches', 'true'),
        ('gentle', 'repaint_separate_batches', 'false'),
        ('demo', 'scale', '0.6 1.0'),
        ('demo', 'fh_scale', ''),
        ('tables/resnet50-repaint', 'mask', 'deeplabv2'),
        ('tables/detection/efficientdet-d0-repaint', 'pretrained_backbone', 'true'),
        ('tables/detection/efficientdet-d0-baseline', 'scale_jitter', '0.1 2.0'),
    ],
)
def test_one_value_is_what_the_training_would_have(recipe, name, value, capsys):
    assert run_cli('options', '-c', recipe, '--get', name) == 0
    assert capsys.readouterr().out == f'{value}\n'


def test_a_value_of_ones_own_file_and_the_file_of_a_recipe(tmp_path, capsys):
    (tmp_path / 'mine.yaml').write_text(yaml.safe_dump({'lr': 0.25, 'opt-kwargs': {'a': 1}}))
    parser = build_parser()
    assert value_of(parser, 'lr') is None
    assert run_cli('options', '-c', tmp_path / 'mine.yaml', '--get', 'lr') == 0
    assert run_cli('options', '-c', tmp_path / 'mine.yaml', '--get', 'opt_kwargs') == 0
    assert run_cli('options', '-c', 'demo', '--where') == 0
    assert capsys.readouterr().out.splitlines() == ['0.25', '{a: 1}', str(FOLDER / 'demo.yaml')]


def test_several_values_are_printed_a_line_each_and_an_unset_one_is_empty(tmp_path, capsys):
    (tmp_path / 'mine.yaml').write_text(yaml.safe_dump({'opt_kwargs': {f'a_long_name_{i}': i for i in range(9)}}))
    assert run_cli('options', '-c', tmp_path / 'mine.yaml', '--get', 'opt-kwargs', 'lr', 'mask') == 0
    mapping, *others = capsys.readouterr().out.splitlines()
    assert len(yaml.safe_load(mapping)) == 9 and others == ['', 'fh']


def test_a_wrong_name_of_an_option_or_recipe_is_told_in_one_line():
    assert (
        run_cli('options', '--get', 'maks') == 'error: no option is called maks; timm-repaint train --help lists them'
    )
    assert str(run_cli('options', '-c', 'demi', '--get', 'mask')).startswith('error: there is no file demi, and no rec')


def test_the_environment_has_a_line_for_each_fact(capsys):
    assert run_cli('env') == 0
    facts = dict(line.split(':', 1) for line in capsys.readouterr().out.splitlines())
    names = ['timm_repaint', 'Python', 'torch', 'torchvision', 'timm', 'numpy', 'Pillow', 'scikit-image', 'OpenCV']
    assert [name for name in names if not facts[name].strip()] == []
    assert facts['timm_repaint'].strip() == timm_repaint.__version__
    assert {'CUDA', 'GPUs', 'platform', 'CPUs'} <= facts.keys()


def test_job_scripts_are_written_whole_once_and_others_are_kept(tmp_path, capsys):
    folder = tmp_path / 'my jobs'
    assert run_cli('slurm', folder) == 0
    assert 'train.sbatch' in capsys.readouterr().out
    written = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(written) == {path.name for path in SCRIPTS.iterdir()} - {'launch.sh'}
    assert all(os.access(folder / name, os.X_OK) for name in written)
    assert run_cli('slurm', folder) == 0  # the same ones
    (folder / 'train.sbatch').write_text('mine')
    assert (
        run_cli('slurm', folder) == f'error: {folder} has other scripts: train.sbatch; give another folder, or --force'
    )
    assert (folder / 'train.sbatch').read_text() == 'mine'
    assert run_cli('slurm', folder, '--force') == 0
    assert (folder / 'train.sbatch').read_text() == written['train.sbatch']


def test_the_scripts_name_their_own_folder_and_read_no_other_file():
    for name, text in job_scripts(Path('jobs')).items():
        assert 'launch.sh' not in text, name
        assert 'launch() {' in text or name == 'submit.sh'
        head = text.split('#SBATCH')[0] if name != 'submit.sh' else text.split('set -euo')[0]
        assert 'timm_repaint/' not in head and f'jobs/{name}' in head, head


def test_the_public_names_are_loaded_at_use_and_all_there():
    assert set(timm_repaint.__all__) <= set(dir(timm_repaint))
    assert all(getattr(timm_repaint, name).__name__ == name for name in timm_repaint.__all__)
    with pytest.raises(AttributeError, match='No timm_repaint attribute Repaints'):
        timm_repaint.Repaints  # noqa: B018


def test_ctrl_c_while_a_command_is_still_loaded_ends_as_at_any_other_time(monkeypatch, capsys):
    def interrupt(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, 'import_module', interrupt)
    monkeypatch.setattr(signal, 'signal', lambda *values: None)  # this process goes on
    for name in ('stdout', 'stderr'):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    with pytest.raises(SystemExit) as stop:
        cli.main(['env'])
    assert stop.value.code == 130 and capsys.readouterr().err == 'interrupted\n'
