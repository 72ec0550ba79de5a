"""The wheel, installed into an empty folder: what is in it; it trains, paints and submits away from a checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import column
from tests.runs.test_slurm import Cluster
from timm_repaint.version import __version__

REPO = Path(__file__).resolve().parents[2]
# Of the checkout: the package, and much that must not get into the wheel.
COPIED = ('timm_repaint', 'bench', 'examples', 'tests', 'docs', 'train.py', 'fine_tune.py')
COPIED += ('pyproject.toml', 'setup.cfg', 'README.md', 'LICENSE')
SMALL = [
    '--epochs',
    '2',
    '--train-num-samples',
    '24',
    '--val-num-samples',
    '8',
    '-b',
    '8',
    '-vb',
    '8',
    '-j',
    '0',
    '--img-size',
    '32',
    '--repaint-width',
    '8',
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    """Built from a copy: setuptools puts what lies in build/ from earlier into the wheel too."""
    folder = tmp_path_factory.mktemp('wheel')
    copy = folder / 'checkout'
    copy.mkdir()
    for name in COPIED:
        source = REPO / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns('__pycache__', 'output'))
        else:
            shutil.copy(source, copy / name)
    pip('wheel', '--no-deps', '--no-build-isolation', '-w', folder, copy)
    (path,) = folder.glob('*.whl')
    return path


@pytest.fixture(scope='module')
def site(wheel, tmp_path_factory) -> Path:
    """A folder with the installed wheel and nothing else."""
    folder = tmp_path_factory.mktemp('site')
    pip('install', '--no-deps', '--target', folder, wheel)
    return folder


@pytest.fixture(scope='module')
def place(tmp_path_factory) -> Path:
    """An empty folder away from any checkout, where the commands are called one after the other."""
    return tmp_path_factory.mktemp('an empty folder')


def pip(*words: object) -> None:
    command = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '-q', *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr


def run(site: Path, place: Path, *words: object) -> str:
    """Call the installed `timm-repaint` in the place; what it printed."""
    command = [site / 'bin' / 'timm-repaint', *map(str, words)]
    done = subprocess.run(command, cwd=place, env=environment(site), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f'{words}\n{done.stdout}\n{done.stderr}'
    return done.stdout


def environment(site: Path) -> dict[str, str]:
    return {**os.environ, 'PYTHONPATH': str(site), 'OMP_NUM_THREADS': '1'}


@pytest.fixture(scope='module')
def trained(site, place) -> Path:
    run(site, place, 'train', '-c', 'demo', *SMALL, '--repaint', '--output', 'runs')
    return place / 'runs' / 'demo'


@pytest.fixture(scope='module')
def images(place) -> Path:
    draw = np.random.default_rng(0)
    folder = place / 'images' / 'a cat'
    folder.mkdir(parents=True)
    for index in range(2):
        pixels = draw.integers(0, 255, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((48, 40)).save(folder / f'{index}.png')
    return folder.parent


def test_the_wheel_has_the_package_its_recipes_and_types_and_nothing_beside(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    package = {path.relative_to(REPO).as_posix() for path in (REPO / 'timm_repaint').rglob('*') if path.is_file()}
    wanted = {name for name in package if '__pycache__' not in name}
    info = f'timm_repaint-{__version__}.dist-info'
    assert {name for name in names if not name.startswith(f'{info}/')} == wanted
    for name in (
        'py.typed',
        'pretrained.safetensors',
        'recipes/demo.yaml',
        'recipes/slurm/launch.sh',
        'recipes/slurm/submit.sh',
    ):
        assert f'timm_repaint/{name}' in names
    assert 'timm_repaint/recipes/tables/detection/efficientdet-d0-repaint.yaml' in names
    assert f'{info}/licenses/LICENSE' in names


def test_the_metadata_say_what_it_is_and_what_it_needs(wheel):
    archive = zipfile.ZipFile(wheel)
    info = f'timm_repaint-{__version__}.dist-info'
    metadata = archive.read(f'{info}/METADATA').decode().split('\n\n')[0].splitlines()
    assert {'Name: timm_repaint', f'Version: {__version__}', 'License-Expression: Apache-2.0'} <= set(metadata)
    assert {'Author: timm_repaint contributors', 'Requires-Python: >=3.10'} <= set(metadata)
    assert {f'Classifier: Programming Language :: Python :: 3.{minor}' for minor in range(10, 14)} <= set(metadata)
    needed = {
        line.split()[1].split('>')[0] for line in metadata if line.startswith('Requires-Dist') and ';' not in line
    }
    assert {'torch', 'timm', 'pyyaml'} <= needed
    assert 'timm-repaint = timm_repaint.cli:main' in archive.read(f'{info}/entry_points.txt').decode()


def test_the_installed_package_is_what_is_imported(site, place):
    code = 'import timm_repaint, timm_repaint.cli; print(timm_repaint.__file__, timm_repaint.cli.__file__, sep="\\n")'
    command = [sys.executable, '-c', code]
    done = subprocess.run(command, cwd=place, env=environment(site), capture_output=True, text=True, check=True)
    assert [Path(line).parent for line in done.stdout.splitlines()] == [site / 'timm_repaint'] * 2
    assert Path(run(site, place, 'options', '-c', 'demo', '--where').strip()).is_relative_to(site)


def test_it_trains_with_repaints_and_fine_tunes(site, place, trained):
    assert column(trained, 'epoch') == [0] and 'train_d_loss' in (trained / 'summary.csv').read_text()
    assert (trained / 'gallery-0.png').is_file()
    run(site, place, 'fine-tune', trained.relative_to(place))
    assert column(trained / 'fine_tune', 'epoch') == [1]


def test_it_makes_masks_paints_and_reports(site, place, trained, images):
    run(site, place, 'masks', 'images', 'masks', '--mask', 'fh')
    run(site, place, 'masks', 'images', 'masks', '--check')
    assert {path.name for path in (place / 'masks').rglob('*.png')} == {'0.png', '1.png'}
    run(site, place, 'paint', trained.relative_to(place), 'images', 'painted', '--copies', 2)
    painted = sorted((place / 'painted' / 'a cat').iterdir())
    assert [path.name for path in painted] == ['0-1.png', '0-2.png', '1-1.png', '1-2.png']
    assert all(Image.open(path).size == (48, 40) for path in painted)
    run(site, place, 'report', 'gallery', trained.relative_to(place), '--output', 'gallery.png')
    assert Image.open(place / 'gallery.png').size[0] > 100


def test_its_job_scripts_train_and_fine_tune_on_a_cluster(site, place, tmp_path):
    run(site, place, 'slurm', 'jobs')
    cluster = Cluster(tmp_path)
    settings = {'PYTHONPATH': site, 'DATA': '', 'RECIPE': 'demo', 'NAME': 'job', 'OUTPUT': 'runs'}
    cluster.call('sbatch', 'jobs/train.sbatch', *SMALL, cwd=place, **settings)
    rows = cluster.call('sbatch', 'jobs/fine_tune.sbatch', cwd=place, **settings)
    assert [row['code'] for row in rows] == [0, 0], rows
    assert 'timm-repaint fine-tune runs/job' in rows[0]['output']
    assert column(place / 'runs' / 'job' / 'fine_tune', 'epoch') == [1]
