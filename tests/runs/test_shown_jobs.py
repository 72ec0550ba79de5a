"""The commands for clusters that README and docs show, run word by word with stand-ins for SLURM and the programs."""

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from tests.runs.test_slurm import Cluster, value_of
from timm_repaint.options import build_config_parser, build_parser, parse_args
from timm_repaint.recipes import find_recipe

REPO = Path(__file__).resolve().parents[2]
# In the place of all programs that a block calls: writes down its words.
RECORDER = '#!/bin/sh\necho "$(basename "$0")" "$@" >> "$CALLS"\n'


def shell_blocks(page: str) -> list[str]:
    return re.findall(r'```sh\n(.*?)```', (REPO / page).read_text(), re.S)


def calls_of(block: str, folder: Path) -> list[list[str]]:
    """The words of each call of a block's programs, which do not run."""
    for name in ('sbatch', 'torchrun', 'timm-repaint', 'python'):
        (folder / name).write_text(RECORDER)
        (folder / name).chmod(stat.S_IRWXU)
    calls = folder / 'calls'
    environment = {**os.environ, 'PATH': f'{folder}:{os.environ["PATH"]}', 'CALLS': str(calls)}
    done = subprocess.run(['bash', '-euc', block], cwd=REPO, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in calls.read_text().splitlines()]


def test_the_jobs_that_are_shown_start_the_programs_with_options_that_they_have(tmp_path):
    cluster = Cluster(tmp_path / 'the cluster')
    for block in shell_blocks('docs/slurm.md'):
        rows = cluster.call('bash', '-euc', block, PYTHON='stand-in-python', CODES=0, SHARDS=2)
    scripts = ['train', 'fine_tune', 'masks', 'masks', 'train', 'fine_tune']
    assert [Path(row['script']).stem for row in rows] == scripts
    assert [row['code'] for row in rows] == [0] * 6, rows
    for (words, _), script in zip(cluster.calls(), scripts, strict=True):
        if script == 'masks':
            assert words[:4] == ['-m', 'timm_repaint.masks', '/data/imagenet', '/data/masks']
            continue
        assert words[0] == f'{script}.py'
        options = build_parser(run_dir=script == 'fine_tune').parse_args(words[1:])
        assert options.resume == 'auto'
        if script == 'train':
            assert (options.repaint, options.model, options.experiment) == (True, 'resnet50', 'r50')


@pytest.mark.parametrize('number', range(len(shell_blocks('docs/tables.md'))))
def test_the_rows_of_the_papers_tables_name_scripts_and_recipes_that_are_there(number, tmp_path):
    calls = calls_of(shell_blocks('docs/tables.md')[number], tmp_path)
    jobs = [call for call in calls if call[0] == 'sbatch']
    assert jobs or [call[:3] for call in calls] == [['timm-repaint', 'report', 'tables']]
    for _, array, script, recipe, *options in jobs:
        assert array == '--array=1-5' and (REPO / script).is_file() and find_recipe(recipe)
        build_parser().parse_args(['-c', recipe, *options])


def test_the_recipe_of_the_front_page_is_added_to_a_command_of_timm(tmp_path):
    (diff,) = re.findall(r'```diff\n(.*?)```', (REPO / 'README.md').read_text(), re.S)
    after = '\n'.join(line[1:] for line in diff.splitlines() if line[0] != '-')
    train, fine_tune = calls_of(after, tmp_path)
    assert train[:2] == ['python', 'train.py']
    options, _ = parse_args(build_parser(), build_config_parser(), train[2:])
    assert (options.repaint, options.mask, options.repaint_generator) == (True, 'fh', 'shift')
    assert (options.epochs, options.data_dir or options.data, options.pretrained) == (40, 'photos', True)
    assert fine_tune == ['python', 'fine_tune.py', f'output/train/{value_of(train, "--experiment")}']
    before = '\n'.join(line[1:] for line in diff.splitlines() if line[0] != '+')
    (tmp_path / 'calls').unlink()
    (plain,) = calls_of(before, tmp_path)
    assert not parse_args(build_parser(), build_config_parser(), plain[2:])[0].repaint
    assert [word for word in train if word not in plain] == ['robust', '-c', 'robust']
