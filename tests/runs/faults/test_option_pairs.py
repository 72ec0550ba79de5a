"""Random pairs and triples of our options with timm's, an update each: they end well, or in one line that says why.

Three hundred by hand:

    python -m pytest -m slow tests/runs/faults/test_option_pairs.py
"""

import os
import random
import signal
import sys
from typing import Any

import pytest
import torch

import train
from tests.helpers import SCHEDULE, SHAPES, TINY
from tests.runs.faults.bed import server
from timm_repaint.errors import run_command
from timm_repaint.options.roles import DECLARED

COUNT = 300
FAST = 6
SECONDS = 60
# What needs a file, a network, a package or another kind of machine, or is given anyway.
LEFT_OUT = (
    'help config data data_dir dataset train_split val_split dataset_download class_map dataset_trust_remote_code '
    'pretrained pretrained_path initial_checkpoint device device_modules local_rank torchcompile torchcompile_mode '
    'output experiment log_wandb wandb_project wandb_tags wandb_resume_id epochs workers fuser repaint '
    'mask_checkpoint repaint_checkpoint no_ddp_bb input_key target_key mask_dir'
)
VALUES: dict[str, tuple] = {
    'aa': ('rand-m9-mstd0.5', 'augmix-m3-w2', 'original', 'v0', '3a', 'nonsense'),
    'opt': ('adamw', 'lamb', 'lion', 'adafactor', 'muon', 'lookahead_sgd', 'nonsense'),
    'sched': ('step', 'plateau', 'poly', 'multistep', 'tanh', 'none', 'nonsense'),
    'model': ('test_vit', 'test_convnext', 'test_efficientnet', 'test_mambaout', 'nonsense'),
    'img_size': (32, 48, 31, 33, 64, 0),
    'input_size': ((3, 32, 32), (3, 32, 48), (1, 32, 32), (3, 33, 41)),
    'in_chans': (1, 3, 4, 8),
    'mean': ((0.5,), (0.5, 0.4, 0.3), (0.1, 0.2)),
    'std': ((0.2,), (0.2, 0.2, 0.3), (0.0,), (1.0, 2.0)),
    'train_num_samples': (8, 16, 4, 0),
    'val_num_samples': (8, 1, 0),
    'batch_size': (8, 1, 7, 2, 0, 16),
    'num_classes': (10, 12, 2, 0),
    'resume': ('auto', 'nothing.pth.tar'),
    'gp': ('avg', 'max', 'avgmax', 'catavgmax', 'nonsense'),
    'input_img_mode': ('RGB', 'L', 'nonsense'),
    'interpolation': ('bilinear', 'bicubic', 'random', 'nonsense'),
    'train_interpolation': ('bilinear', 'nearest', 'nonsense'),
    'train_crop_mode': ('rrc', 'rkrc', 'rkrr', 'nonsense'),
    'worker_seeding': ('all', 'part', 'nonsense'),
    'amp_dtype': ('bfloat16', 'float16', 'float8'),
    'model_dtype': ('bfloat16', 'float16', 'float32', 'int8'),
    'clip_mode': ('norm', 'value', 'agc', 'nonsense'),
    'lr_base_scale': ('sqrt', 'linear', 'nonsense'),
    'remode': ('pixel', 'rand', 'const', 'nonsense'),
    'mixup_mode': ('batch', 'pair', 'elem', 'half', 'nonsense'),
    'dist_bn': ('broadcast', 'reduce', '', 'nonsense'),
    'eval_metric': ('top1', 'top5', 'loss', 'nonsense'),
    'kd_model_name': ('test_resnet', 'test_vit', 'nonsense'),
    'kd_loss_type': ('kl', 'nonsense'),
    'model_kwargs': ('drop_path_rate=0.1', 'nonsense=1'),
    'opt_kwargs': ('eps=1e-3', 'nonsense=1'),
    'repaint_schedule': ('1:1', '0:1', '1:0', '2:1', 'x'),
    'repaint_width': (4, 8, 16, 1, 0),
    'repaint_latent_dim': (1, 4, 0, 300),
    'repaint_epochs': (0, 1, 2),
    'mask': ('fh', 'superpixels', 'outlines', 'folder', 'deeplabv2'),
    'mask_classes': (2, 10, 0),
    'train_img_sizes': ((32, 64), (16, 32), (32,)),
    'train_batch_sizes': ((8, 4), (8,), (0,)),
    'naflex_patch_sizes': ((8, 16), (16,)),
    'naflex_train_seq_lens': ((16, 32), (4,)),
    'naflex_max_seq_len': (16, 4),
    'aug_splits': (0, 1, 2, 3),
    'tta': (0, 1, 2, 3),
    'cutout': (1, 8, 64, -1),
    'decay_milestones': ((1, 2), (0,)),
    'seed': (0, -1, 2**32, 7),
}
NUMBERS = {int: (0, 1, 2, 3, -1), float: (0.0, 0.1, 0.5, 1.0, 2.0, -1.0, float('nan'))}


def actions() -> dict[str, Any]:
    return {one.dest: one for one in train.parser._actions if one.dest not in LEFT_OUT.split()}


def draw_words(draw: random.Random, action: Any) -> list[str]:
    """An option with a value, now and then a wrong one."""
    flag = max(action.option_strings, key=len)
    if action.nargs == 0:
        return [flag]
    if action.dest in VALUES:
        value = draw.choice(VALUES[action.dest])
        return [flag, *map(str, value if isinstance(value, tuple) else (value,))]
    if action.choices:
        return [flag, draw.choice(list(action.choices))]
    count = draw.randint(1, 3) if action.nargs == '+' else action.nargs or 1
    return [flag, *(str(draw.choice(NUMBERS[action.type])) for _ in range(count))]


def draw_options(seed: int) -> list[str]:
    """One or two of our options with one or two of timm's, a pair or a triple in all."""
    draw, known = random.Random(seed), actions()
    ours = [name for name in known if name in DECLARED]
    theirs = [name for name in known if name not in DECLARED]
    count = draw.choice([1, 1, 2])
    names = [*draw.sample(ours, count), *draw.sample(theirs, draw.choice([1, 2]) if count == 1 else 1)]
    words = ['--repaint'] if draw.random() < 0.85 else []
    return [*words, *(word for name in names for word in draw_words(draw, known[name]))]


def _train(output: str, words: list[str]) -> None:
    log = os.open(f'{output}/log.txt', os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(output)
    torch.set_num_threads(1)
    signal.alarm(SECONDS)
    base = (*TINY, *SCHEDULE, *SHAPES, '--train-num-samples', 8, '--repaint-width', 4, '--epochs', 1)
    sys.argv = ['train.py', *map(str, base), '--output', output, '--experiment', 'run', *words]
    run_command(train.main)


def check(seed, output):
    words = draw_options(seed)
    process = server.Process(target=_train, args=(str(output), words))
    process.start()
    process.join()
    said = (output / 'log.txt').read_text(errors='replace')
    told = f'{seed}: {" ".join(words)}: status {process.exitcode}\n{said[-3000:]}'
    assert 'Traceback' not in said, told
    assert process.exitcode in (0, 1, 2), told
    assert process.exitcode == 0 or 'error: ' in said.strip().splitlines()[-1], told


def test_every_option_that_is_drawn_has_values():
    for name, action in actions().items():
        assert action.nargs == 0 or name in VALUES or action.choices or action.type in NUMBERS, name


@pytest.mark.parametrize('seed', range(FAST))
def test_options_end_well_or_in_one_line(seed, tmp_path):
    check(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(FAST, COUNT))
def test_three_hundred_pairs_and_triples_of_options_end_well_or_in_one_line(seed, tmp_path):
    check(seed, tmp_path)
