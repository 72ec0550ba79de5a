"""Random pairs and triples of our options with timm's, two updates each: they end well, or in one line that says why.

Where one ends well each option has done something: the run without it leaves other weights, figures or files. Or the
run names it among those that do nothing, or it is of `QUIET`, whose options change nothing in so short a run.

Three hundred by hand:

    python -m pytest -m slow tests/runs/faults/test_option_pairs.py
"""

import os
import random
import re
import shutil
import signal
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch

import train
from tests.helpers import SCHEDULE, SHAPES, TINY, same_tensors
from tests.runs.faults.bed import server
from tests.runs.faults.works import result_of
from timm_repaint.errors import run_command
from timm_repaint.options.roles import DECLARED

COUNT = 300
FAST = 4
SECONDS = 180  # for the full-size generator on a busy machine
BASE = tuple(map(str, (*TINY, *SCHEDULE, *SHAPES, '--repaint-width', 4, '--repaint-schedule', '1:1', '--epochs', 1)))
TIMES = re.compile(r'  \d+/s.*')
# Why an option changes nothing in one epoch of two updates, on one CPU; and the options.
QUIET = {
    'the same numbers, computed in another way': 'synchronize_step pin_mem channels_last fast_norm grad_checkpointing '
    'fh_backend use_multi_epochs_loader worker_seeding no_prefetcher',
    'in several processes alone': 'dist_bn sync_bn',
    'in a later epoch or update': 'stop_epoch save_epochs repaint_gallery_interval lr_cycle_limit lr_cycle_mul '
    'lr_cycle_decay cooldown_epochs patience_epochs decay_milestones decay_epochs decay_rate lr_k_decay min_lr '
    'mixup_off_epoch val_interval checkpoint_hist recovery_interval log_interval train_size_schedule '
    'train_size_schedule_spread train_size_random_mix lr_noise lr_noise_pct lr_noise_std',
    'where a loss is not finite': 'repaint_max_nonfinite',
    'where the last map has more than one place': 'gp',
}
IN_SHORT_RUNS = {name for names in QUIET.values() for name in names.split()}
# Values that are timm's own where the option is not given.
AS_UNSET = {
    'train_crop_mode': 'rrc',
    'repaint_epochs': 1,
    'in_chans': 3,
    'input_size': [3, 32, 32],
    'input_img_mode': 'RGB',
}
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


def draw_words(draw: random.Random, action: Any) -> tuple[str, ...]:
    """An option with a value, now and then a wrong one."""
    flag = max(action.option_strings, key=len)
    if action.nargs == 0:
        return (flag,)
    if action.dest in VALUES:
        value = draw.choice(VALUES[action.dest])
        return (flag, *map(str, value if isinstance(value, tuple) else (value,)))
    if action.choices:
        return flag, draw.choice(list(action.choices))
    count = draw.randint(1, 3) if action.nargs == '+' else action.nargs or 1
    return (flag, *(str(draw.choice(NUMBERS[action.type])) for _ in range(count)))


def draw_options(seed: int) -> list[tuple[str, ...]]:
    """One or two of our options with one or two of timm's, a pair or a triple in all; most behind `--repaint`."""
    draw, known = random.Random(seed), actions()
    ours = [name for name in known if name in DECLARED]
    theirs = [name for name in known if name not in DECLARED]
    count = draw.choice([1, 1, 2])
    names = [*draw.sample(ours, count), *draw.sample(theirs, draw.choice([1, 2]) if count == 1 else 1)]
    phase = [('--repaint',)] if draw.random() < 0.85 else []
    return [*phase, *(draw_words(draw, known[name]) for name in names)]


@dataclass(frozen=True)
class Outcome:
    """How a run ended, what it said, and what it left but the record of its options."""

    status: int | None
    said: str
    left: dict[str, Any]


def _train(output: str, words: tuple[str, ...]) -> None:
    log = os.open(f'{output}/log.txt', os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(output)
    torch.set_num_threads(1)
    signal.alarm(SECONDS)
    sys.argv = ['train.py', *BASE, '--output', output, '--experiment', 'run', *words]
    run_command(train.main)


@pytest.fixture(scope='module')
def outcome(tmp_path_factory):
    """The outcome of a run with some options, which is made once."""

    @cache
    def find(*options: tuple[str, ...]) -> Outcome:
        output = tmp_path_factory.mktemp('run')
        process = server.Process(target=_train, args=(str(output), [word for words in options for word in words]))
        process.start()
        process.join()
        said = (output / 'log.txt').read_text(errors='replace')
        left = result_of(output / 'run') if process.exitcode == 0 else {}
        left['lines'] = [TIMES.sub('', line) for line in said.splitlines() if line.startswith(('Train:', 'Test:'))]
        shutil.rmtree(output)
        return Outcome(process.exitcode, said, left)

    return find


def check(seed, outcome):
    options = draw_options(seed)
    run = outcome(*options)
    told = f'{seed}: {options}: status {run.status}\n{run.said[-3000:]}'
    assert 'Traceback' not in run.said, told
    assert run.status in (0, 1, 2), told
    assert run.status == 0 or 'error: ' in run.said.strip().splitlines()[-1], told
    if run.status == 0:
        silent = [words for words in options if not shows(words, options, run, outcome)]
        assert not silent, f'{silent} did nothing in silence: {told}'


def shows(words: tuple[str, ...], options: list[tuple[str, ...]], run: Outcome, outcome: Any) -> bool:
    """Whether an option has done something in a run, was said to do nothing, or does nothing in so short a run."""
    rest = [other for other in options if other is not words]
    name = words[0].lstrip('-').replace('-', '_')
    if name in IN_SHORT_RUNS or any(words[0] in line for line in run.said.splitlines() if 'do nothing' in line):
        return True
    flat = [[word for one in chosen for word in one] for chosen in (options, rest)]
    new, old = (vars(train.parser.parse_args([*BASE, *words]))[name] for words in flat)
    if new == old or not (new or old) or AS_UNSET.get(name) == new:
        return True
    before = outcome(*rest)
    return before.status != 0 or not same_tensors(run.left, before.left)


def test_every_option_that_is_drawn_has_values():
    for name, action in actions().items():
        assert action.nargs == 0 or name in VALUES or action.choices or action.type in NUMBERS, name


@pytest.mark.parametrize('seed', range(FAST))
def test_options_end_well_or_in_one_line(seed, outcome):
    check(seed, outcome)


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(FAST, COUNT))
def test_three_hundred_pairs_and_triples_of_options_end_well_or_in_one_line(seed, outcome):
    check(seed, outcome)
