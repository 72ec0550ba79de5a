"""Works that a fault is tried on: what each runs, in how many processes, and what has to be the same in the end."""

import importlib
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import fine_tune  # noqa: F401 (the server of the processes imports all of this)
import timm_repaint.detection.detection_watch
import timm_repaint.detection.task
import timm_repaint.detection.train
import timm_repaint.masks.__main__
import timm_repaint.paint  # noqa: F401
import train  # noqa: F401
from tests.helpers import REPAINT, SCHEDULE, TINY, load_checkpoint
from timm_repaint.errors import run_command

STATE = ('epoch', 'arch', 'state_dict', 'state_dict_ema', 'optimizer', 'repaint', 'metric')
PHASES = ('--epochs', 3, '--repaint-epochs', 2, '--repaint-gallery-interval', 1, '--checkpoint-hist', 2)
TRAIN = (*TINY, *SCHEDULE, *REPAINT, *PHASES, '--model-ema', '--save-epochs', 1, '--recovery-interval', 2)
DETECTION = (
    '--device', 'cpu', '--img-size', 128, '-b', 2, '-j', 0, '--lr', '0.002', '--warmup-epochs', 0, '--repaint',
    '--repaint-width', 8, '--epochs', 1, '--repaint-epochs', 1,
)  # fmt: skip
NAMES = ('--experiment', 'run', '--resume', 'auto')


@dataclass(frozen=True)
class Work:
    """A command that can be given again until it is done.

    Attributes:
        module: Whose `main` it is.
        words: From the folders of inputs and outputs to its words.
        inputs: What lies in the output folder at the start, by its name among the inputs; '': nothing.
        processes: How many work together.
    """

    module: str
    words: Callable[[Path, Path], tuple]
    inputs: str = ''
    processes: int = 1

    def prepare(self, inputs: Path, output: Path) -> None:
        """The output folder as it is before the command."""
        if self.inputs:
            shutil.copytree(inputs / self.inputs, output, dirs_exist_ok=True)

    def run(self, inputs: Path, output: Path) -> None:
        """The command, in this process; ends it."""
        torch.set_num_threads(1)
        main = importlib.import_module(self.module).main
        sys.argv = [self.module, *map(str, self.words(inputs, output))]
        run_command(main)


def train_words(inputs: Path, output: Path) -> tuple:
    return (*TRAIN, '--output', output, *NAMES)


WORKS = {
    'train': Work('train', train_words),
    'fine-tune': Work('fine_tune', lambda inputs, output: (output / 'run', '--resume', 'auto'), inputs='trained'),
    'masks': Work(
        'timm_repaint.masks.__main__',
        lambda inputs, output: (inputs / 'images', output / 'masks', '--workers', 1, '--fh-backend', 'skimage'),
    ),
    'paint': Work(
        'timm_repaint.paint',
        lambda inputs, output: (
            inputs / 'trained' / 'run',
            inputs / 'images',
            output / 'out',
            '--device',
            'cpu',
            '--workers',
            1,
        ),
    ),
    'detection': Work(
        'timm_repaint.detection.train',
        lambda inputs, output: ('--data-dir', inputs / 'coco', *DETECTION, '--output', output, *NAMES),
    ),
    'two processes': Work('train', train_words, processes=2),
}


def result_of(output: Path) -> dict[str, Any]:
    """What a work has left, by name; of checkpoints what they teach, of other files their bytes.

    Not what is of a moment or of one process: recovery checkpoints, the options' text, its own ranking, hidden files.
    """
    found: dict[str, Any] = {}
    for path in sorted(output.rglob('*')):
        name = str(path.relative_to(output))
        if path.is_dir() or path.name.startswith(('recovery', '.')) or path.name == 'args.yaml':
            continue
        if name.endswith('.pth.tar'):
            content = load_checkpoint(path)
            found[name] = {key: content.get(key) for key in STATE}
        else:
            found[name] = path.read_bytes()
    return found


def assert_readable(output: Path) -> None:
    """Every checkpoint that has its name is whole."""
    for path in output.rglob('*.pth.tar'):
        if 'tmp' not in path.name:
            load_checkpoint(path)


def environment(rank: int, world_size: int, port: int) -> None:
    """Tell this process which of several it is, as a launcher does."""
    if world_size > 1:
        names = {'RANK': rank, 'LOCAL_RANK': rank, 'WORLD_SIZE': world_size, 'MASTER_PORT': port}
        os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR='127.0.0.1')
