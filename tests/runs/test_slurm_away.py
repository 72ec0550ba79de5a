"""The job scripts that `timm-repaint slurm` writes, in an empty folder without a checkout; SLURM has stand-ins."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import column
from tests.runs.test_slurm import SHAPES, TINY, Cluster, value_of
from timm_repaint.commands.write_jobs import job_scripts, write_scripts
from timm_repaint.errors import UsageError
from timm_repaint.recipes import FOLDER

REPO = Path(__file__).resolve().parents[2]


class ClusterAway(Cluster):
    """Jobs are submitted from an empty folder, to which the scripts were written."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / 'the cluster')
        self.home = folder / 'my work'
        self.home.mkdir()
        write_scripts(self.home / 'my jobs', job_scripts(Path('my jobs')), force=False)

    def submit(self, script: str, *words: object, options: tuple[str, ...] = (), **env: object) -> list[dict]:
        """What became of the jobs of a script."""
        return self.call('sbatch', *options, f'my jobs/{script}', *words, cwd=self.home, PYTHONPATH=REPO, **env)


@pytest.fixture
def cluster(tmp_path) -> ClusterAway:
    return ClusterAway(tmp_path)


def test_places_where_scripts_cannot_be_are_told(tmp_path):
    texts = {'row.sbatch': 'one\n', 'train.sbatch': 'two\n'}
    file = tmp_path / 'afile'
    file.write_text('mine')
    with pytest.raises(UsageError, match='afile is no folder; give another one'):
        write_scripts(file, texts, force=False)
    with pytest.raises(UsageError, match=r'cannot write .*afile/x/row\.sbatch: Not a directory'):
        write_scripts(file / 'x', texts, force=False)
    (tmp_path / 'train.sbatch').mkdir()
    (tmp_path / 'row.sbatch').write_bytes(b'\xff\xfe')
    with pytest.raises(UsageError, match=r'has other scripts: row\.sbatch, train\.sbatch; give another folder, or'):
        write_scripts(tmp_path, texts, force=False)
    with pytest.raises(UsageError, match=r'cannot write .*train\.sbatch: Is a directory'):
        write_scripts(tmp_path, texts, force=True)
    (tmp_path / 'train.sbatch').rmdir()
    write_scripts(tmp_path, texts, force=True)
    assert (tmp_path / 'row.sbatch').read_text() == 'one\n' and os.access(tmp_path / 'row.sbatch', os.X_OK)


def test_each_script_starts_the_installed_program(cluster):
    settings = {'PYTHON': 'stand-in-python', 'CODES': 0, 'NAME': 'r50', 'OUTPUT': '/my runs', 'MASKS': '/my masks'}
    for script in ('train', 'train_nodes', 'fine_tune'):
        cluster.submit(f'{script}.sbatch', '--model', 'x y', **settings)
    cluster.submit('masks.sbatch', options=('--array=1',), **settings)
    calls = [words for words, _ in cluster.calls()]
    train = ['-m', 'timm_repaint.cli', 'train', '/data/imagenet', '--output', '/my runs', '--experiment', 'r50']
    assert [words[:8] for words in calls[:2]] == [train, train]
    assert calls[0][-3:] == ['--repaint', '--model', 'x y']
    assert calls[2] == ['-m', 'timm_repaint.cli', 'fine-tune', '/my runs/r50', '--resume', 'auto', '--model', 'x y']
    assert calls[3][:4] == ['-m', 'timm_repaint.masks', '/data/imagenet', '/my masks']


def test_a_train_py_of_the_users_own_is_not_taken_for_ours(cluster):
    (cluster.home / 'train.py').write_text('raise SystemExit(3)')
    cluster.submit('train.sbatch', PYTHON='stand-in-python', CODES=0)
    assert cluster.calls()[0][0][:3] == ['-m', 'timm_repaint.cli', 'train']


def test_detectors_have_their_own_program_and_seeds_their_own_folder(cluster):
    cluster.submit('seeds.sbatch', PYTHON='stand-in-python', CODES=0, DETECTION=1, options=('--array=2-3',))
    calls = [words for words, _ in cluster.calls()]
    assert [value_of(words, '--experiment') for words in calls] == ['repaint-seed2', 'repaint-seed3']
    assert all(words[:2] == ['-m', 'timm_repaint.detection.train'] for words in calls)


def test_the_three_jobs_follow_each_other(cluster):
    settings = {'PYTHON': 'stand-in-python', 'CODES': 0, 'MASKS': '/my masks', 'SHARDS': 2, 'PYTHONPATH': REPO}
    rows = cluster.call(cluster.home / 'my jobs' / 'submit.sh', cwd=cluster.home, **settings)
    assert [Path(row['script']).stem for row in rows] == ['masks', 'masks', 'train', 'fine_tune']
    assert [row['code'] for row in rows] == [0] * 4, rows
    assert [words[:3] for words, _ in cluster.calls()[2:]] == [
        ['-m', 'timm_repaint.cli', 'train'],
        ['-m', 'timm_repaint.cli', 'fine-tune'],
    ]


@pytest.mark.slow
def test_a_row_takes_a_recipe_by_its_name(cluster):
    settings = {'PYTHON': 'stand-in-python', 'CODES': 0, 'OUTPUT': '/my runs', 'DEEPLAB': '/deep lab.pth'}
    (row,) = cluster.submit('row.sbatch', 'tables/resnet50-repaint', '--amp', **settings)
    assert row['code'] == 0, row['output']
    first, second = (words for words, _ in cluster.calls())
    assert first[:3] == ['-m', 'timm_repaint.cli', 'train'] and first[-1] == '--amp'
    assert value_of(first, '-c') == str(FOLDER / 'tables' / 'resnet50-repaint.yaml')
    assert second[2:] == ['fine-tune', '/my runs/resnet50-repaint-seed1', '--resume', 'auto']
    unknown = cluster.submit('row.sbatch', 'tables/resnet51', **settings)[-1]
    assert unknown['code'] == 1 and 'error: there is no file tables/resnet51, and no recipe' in unknown['output']
    assert len(cluster.calls()) == 2


def test_training_and_fine_tuning_leave_their_files_where_the_job_was_submitted(cluster):
    small = f'{TINY} {SHAPES} --epochs 2 --repaint --repaint-width 8 --repaint-detail none'
    (training,) = cluster.submit('train.sbatch', DATA='', ARGS=small)
    assert training['code'] == 0, training['output']
    fine_tuning = cluster.submit('fine_tune.sbatch')[-1]
    assert fine_tuning['code'] == 0, fine_tuning['output']
    run = cluster.home / 'output' / 'train' / 'repaint'
    assert column(run, 'epoch') == [0] and column(run / 'fine_tune', 'epoch') == [1]


def test_the_shell_and_shellcheck_accept_each_written_script(cluster):
    shellcheck = shutil.which('shellcheck', path=f'{Path(sys.executable).parent}:{os.environ["PATH"]}')
    for path in (cluster.home / 'my jobs').iterdir():
        subprocess.run(['bash', '-n', path], check=True)
        if shellcheck is not None:
            done = subprocess.run([shellcheck, path], capture_output=True, text=True)
            assert done.stdout + done.stderr == ''
