"""The files of examples/ as users run them: in a process of their own, with each framework's package, on tiny data."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from PIL import Image, ImageDraw

from tests.tiny import adam_steps, parts
from timm_repaint import Repaint, load_repainter

REPO = Path(__file__).resolve().parents[2]
FOLDER = REPO / 'examples'
MAX_LINES, MAX_COLUMNS = 48, 119
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RAW = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
NUM_IMAGES, NUM_COCO_IMAGES = 8, 5  # a batch an epoch in each example
FOLDERS = ('classes/train/square', 'classes/train/disc', 'boxes/train2017', 'boxes/annotations')
FOLDERS += ('maps/images', 'maps/labels')


class Example(NamedTuple):
    package: str  # that it needs beside torch and timm
    data: tuple[str | int, ...]  # what comes ahead of the epochs: folders, and a number of classes
    saved: str  # where the state of Repaint is, as a pattern
    is_folder: bool = False  # whether the folder of that file is what one goes on from
    mean_std: tuple = IMAGENET
    launcher: tuple = ()
    num_labels: int | None = None


LAUNCHER = ('-m', 'accelerate.commands.launch', '--cpu', '--num_processes', '1', '--num_machines', '1')
LAUNCHER += ('--dynamo_backend', 'no', '--mixed_precision', 'bf16', '--gradient_accumulation_steps', '2')
EXAMPLES = {
    'pytorch': Example('timm', ('classes',), 'last.pt'),
    'accelerate_loop': Example('accelerate', ('classes',), 'last/custom_checkpoint_0.pkl', True, launcher=LAUNCHER),
    'lightning_module': Example('lightning', ('classes',), 'lightning_logs/*/checkpoints/*.ckpt'),
    'hf_trainer': Example('transformers', ('classes',), 'checkpoint-*/model.safetensors', True),
    'torchvision_detector': Example('pycocotools', ('boxes',), 'last.pt', mean_std=RAW),
    'segmentation': Example('torchvision', ('maps/images', 'maps/labels', 2), 'last.pt', num_labels=2),
}


def draw_picture(number: int) -> tuple[Image.Image, list[int]]:
    """A square or a disc on a ground, 64 px, and its box [x, y, width, height]."""
    dice = random.Random(number)
    ground, ink = (tuple(dice.randrange(256) for _ in range(3)) for _ in range(2))
    picture, (x, y) = Image.new('RGB', (64, 64), ground), (dice.randrange(4, 24), dice.randrange(4, 24))
    draw = ImageDraw.Draw(picture)
    (draw.ellipse if number % 2 else draw.rectangle)((x, y, x + 32, y + 32), fill=ink)
    return picture, [x, y, 32, 32]


def label_map(number: int, box: list[int]) -> Image.Image:
    """The classes of the same picture, with a frame of two pixels that are unknown."""
    labels, (x, y, width, height) = Image.new('L', (64, 64), 0), box
    draw = ImageDraw.Draw(labels)
    (draw.ellipse if number % 2 else draw.rectangle)((x, y, x + width, y + height), fill=1)
    draw.rectangle((0, 0, 63, 63), outline=255, width=2)
    return labels


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    """classes/: an image folder; boxes/: COCO's layout, with gaps between the classes and an image without a box.

    maps/: images, and label maps of ground (0) and shape (1), 255 where the class is unknown.
    """
    root = tmp_path_factory.mktemp('data')
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    images, boxes = [], []
    for number in range(NUM_IMAGES):
        picture, box = draw_picture(number)
        picture.save(root / 'classes/train' / ('disc' if number % 2 else 'square') / f'{number}.png')
        picture.save(root / 'maps/images' / f'{number}.png')
        label_map(number, box).save(root / 'maps/labels' / f'{number}.png')
        if number < NUM_COCO_IMAGES:
            picture.save(root / 'boxes/train2017' / f'{number}.png')
            images.append({'id': number, 'file_name': f'{number}.png', 'width': 64, 'height': 64})
            entry = {'id': number, 'image_id': number, 'bbox': box, 'area': 1024, 'iscrowd': 0}
            boxes += [{**entry, 'category_id': 3 if number % 2 else 1}] if number else []
    classes = [{'id': 1, 'name': 'square'}, {'id': 3, 'name': 'disc'}]
    layout = {'images': images, 'annotations': boxes, 'categories': classes}
    (root / 'boxes/annotations/instances_train2017.json').write_text(json.dumps(layout))
    return root


def run(cwd: Path, *command: object) -> str:
    """Python with a command line, on the CPU; it has to succeed. What it printed."""
    env = {**os.environ, 'PYTHONPATH': f'{REPO}', 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    env |= {'HF_HUB_OFFLINE': '1', 'MASTER_ADDR': 'localhost'}
    words = [sys.executable, *map(str, command)]
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, f'{words} ended with {done.returncode}\n{done.stdout}\n{done.stderr}'
    return done.stdout


def newest(cwd: Path, pattern: str) -> Path:
    return max(cwd.glob(pattern), key=lambda path: path.stat().st_mtime_ns)


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The state of a Repaint from a file of one of the frameworks."""
    if path.suffix == '.safetensors':
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, weights_only=True)
    state = state.get('repaint') or state.get('state_dict') or state
    prefix = 'repaint.' if 'repaint._extra_state' in state else ''
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def words_of(example: Example, data: Path) -> list[object]:
    """What comes ahead of the epochs on its command line."""
    return [data / word if isinstance(word, str) else word for word in example.data]


def load(path: Path, mean_std: tuple, num_labels: int | None = None) -> Repaint:
    repaint = Repaint(*mean_std, num_labels=num_labels)
    repaint.load_state_dict(read_state(path))
    return repaint


OTHERS = ('accelerate_loop', 'hf_trainer')  # packages that take ten seconds to start


@pytest.fixture(
    scope='module', params=[pytest.param(name, marks=pytest.mark.slow) if name in OTHERS else name for name in EXAMPLES]
)
def finished(request, data, tmp_path_factory) -> tuple[str, Path]:
    """An example's name, and where it has run for four epochs: three of repaints, one without."""
    example, cwd = EXAMPLES[request.param], tmp_path_factory.mktemp(request.param)
    pytest.importorskip(example.package)
    run(cwd, *example.launcher, FOLDER / f'{request.param}.py', *words_of(example, data), 4)
    return request.param, cwd


def test_an_example_trains_repaints_stops_them_and_saves(finished):
    name, cwd = finished
    example = EXAMPLES[name]
    path = newest(cwd, example.saved)
    repaint = load(path, example.mean_std, example.num_labels)
    assert repaint.stopped
    assert repaint.updates == 3
    assert adam_steps(repaint) == (3, 1)
    assert repaint.skipped == {'generator': 0, 'discriminator': 0, 'task': 0}
    for part, network in parts(repaint).items():
        optimizer = repaint.optimizers['discriminator' if part == 'D' else 'generator']
        moments = [optimizer.adam.state[weight]['exp_avg_sq'] for weight in network.parameters()]
        assert sum(moment.sum() for moment in moments) > 0, f'{part} has not moved'
    if path.suffix != '.safetensors':
        painter = load_repainter(str(path))
        assert all(
            torch.equal(value, repaint.repainter.state_dict()[key]) for key, value in painter.state_dict().items()
        )


@pytest.mark.slow
def test_an_example_goes_on_from_what_it_saved(finished, data):
    """Two more epochs: a Repaint of which nothing was loaded would count updates from 0."""
    name, cwd = finished
    example = EXAMPLES[name]
    path = newest(cwd, example.saved)
    written = path.stat().st_mtime_ns
    start = path.parent if example.is_folder else path
    out = run(cwd, *example.launcher, FOLDER / f'{name}.py', *words_of(example, data), 6, start)
    path = newest(cwd, example.saved)
    assert path.stat().st_mtime_ns > written
    repaint = load(path, example.mean_std, example.num_labels)
    assert repaint.stopped
    assert repaint.updates == 3
    if name == 'pytorch':
        assert [line.split(':')[0] for line in out.splitlines()] == ['epoch 5', 'epoch 6']
    if name in ('pytorch', 'segmentation', 'torchvision_detector'):
        saved = torch.load(path, weights_only=True)
        assert saved['epoch'] == 6
        assert {int(state['step']) for state in saved['optimizer']['state'].values()} == {6}
    if name == 'lightning_module':
        saved = torch.load(path, weights_only=True)
        assert (saved['epoch'], saved['global_step']) == (5, 6)
    if name == 'accelerate_loop':
        assert torch.load(path.with_name('custom_checkpoint_1.pkl'), weights_only=True)['last_epoch'] == 6
    if name == 'hf_trainer':
        assert json.loads(path.with_name('trainer_state.json').read_text())['epoch'] == 6


@pytest.mark.slow
def test_the_trainer_goes_on_in_the_middle_of_the_repaints(data, tmp_path):
    pytest.importorskip('transformers')
    run(tmp_path, FOLDER / 'hf_trainer.py', data / 'classes', 4)
    assert not load(tmp_path / 'checkpoint-3/model.safetensors', IMAGENET).stopped
    run(tmp_path, FOLDER / 'hf_trainer.py', data / 'classes', 8, 'checkpoint-3')
    repaint = load(tmp_path / 'checkpoint-8/model.safetensors', IMAGENET)
    assert (repaint.updates, adam_steps(repaint), repaint.stopped) == (6, (6, 2), True)


TWO_PROCESSES = f"""
import sys
import lightning, timm, torch
from torchvision.datasets import ImageFolder
sys.path.insert(0, {str(FOLDER)!r})
from lightning_module import RepaintedClassifier
from timm_repaint import with_masks

if __name__ == '__main__':
    data = ImageFolder(sys.argv[1], with_masks(timm.data.create_transform(128, is_training=True)))
    module = RepaintedClassifier(len(data.classes))
    trainer = lightning.Trainer(max_epochs=4, accelerator='cpu', devices=2, strategy='ddp')
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=4, shuffle=True))
    torch.save(module.state_dict(), f'rank{{trainer.global_rank}}.pt')
"""


@pytest.mark.slow
def test_lightning_in_two_processes_keeps_their_networks_equal(data, tmp_path):
    pytest.importorskip('lightning')
    (tmp_path / 'driver.py').write_text(TWO_PROCESSES)
    run(tmp_path, tmp_path / 'driver.py', data / 'classes' / 'train')
    first, second = (torch.load(tmp_path / f'rank{rank}.pt', weights_only=True) for rank in (0, 1))
    learned = [name for name in first if 'running' not in name and 'num_batches' not in name]
    assert [name for name in learned if not torch.equal(first[name], second[name])] == []
    for rank in (0, 1):
        repaint = load(tmp_path / f'rank{rank}.pt', IMAGENET)
        assert (repaint.updates, adam_steps(repaint), repaint.stopped) == (3, (3, 1), True)


@pytest.mark.slow
def test_the_plain_loop_runs_without_the_lines_that_are_marked(data, tmp_path):
    lines = (FOLDER / 'pytorch.py').read_text().splitlines()
    kept = [line for line in lines[1:] if not line.endswith('# +')]
    assert 'repaint' not in '\n'.join(kept).lower()
    (tmp_path / 'plain.py').write_text('\n'.join(kept))
    assert 'epoch 2' in run(tmp_path, tmp_path / 'plain.py', data / 'classes', 2)
    assert torch.load(tmp_path / 'last.pt', weights_only=True).keys() == {'epoch', 'model', 'optimizer'}


@pytest.mark.parametrize('path', sorted(FOLDER.glob('*.py')), ids=lambda path: path.stem)
def test_an_example_fits_on_a_page(path):
    lines = path.read_text().splitlines()
    compile(path.read_text(), path.name, 'exec')
    assert len(lines) <= MAX_LINES
    assert max(map(len, lines)) <= MAX_COLUMNS
    assert lines[0].startswith('"""')
