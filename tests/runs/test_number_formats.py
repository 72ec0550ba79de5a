"""Options that change how numbers are computed train like float32, within a tolerance that is stated here."""

import argparse

import pytest
import torch
import torch._inductor.config

from tests.helpers import REPAINT, column, load_repaint, read_summary, train_here
from timm_repaint.engine.setup import place_model
from timm_repaint.errors import UsageError

# Small learning rates: what the runs differ in after three updates of T and D and one of E and G is rounding.
STEPS = (*REPAINT, '--epochs', 1, '--lr', 1e-3, '--repaint-g-lr', 1e-6, '--repaint-d-lr', 1e-6)
LOSSES = ('loss', 'd_loss', 'g_gan', 'g_feat', 'g_kl', 'g_segment_kl', 'diversity', 'distance')
OPTIONS = {
    'channels last': (('--channels-last',), 1e-4),
    'gradient checkpointing': (('--grad-checkpointing',), 1e-6),
    'automatic bfloat16': (('--amp', '--amp-dtype', 'bfloat16'), 2e-2),
    'automatic float16': (('--amp', '--amp-dtype', 'float16'), 4e-3),
    'bfloat16 classifier': (('--model-dtype', 'bfloat16'), 2e-2),
    'float16 classifier': (('--model-dtype', 'float16'), 4e-3),
    'traced': (('--torchcompile', 'eager'), 1e-4),
    'compiled': (('--torchcompile', 'inductor'), 1e-3),
}
SLOW = ('traced', 'compiled')


@pytest.fixture(scope='module')
def in_float32(tmp_path_factory):
    return train_here(tmp_path_factory.mktemp('float32'), *STEPS)


def parametrized():
    return [
        pytest.param(*values, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name, values in OPTIONS.items()
    ]


@pytest.mark.parametrize(('options', 'tolerance'), parametrized())
def test_a_few_steps_have_the_losses_of_float32(options, tolerance, in_float32, tmp_path):
    torch.compiler.reset()
    with torch._inductor.config.patch(fallback_random=True):  # eager's latents: only rounding differs
        run = train_here(tmp_path, *STEPS, *options)
    for name in LOSSES:
        ours, theirs = column(run, f'train_{name}'), column(in_float32, f'train_{name}')
        assert ours == pytest.approx(theirs, rel=tolerance, abs=tolerance), name
    assert read_summary(run)[0]['train_skipped_updates'] == 0
    scalers = [optimizer.scaler for optimizer in load_repaint(run / 'last.pth.tar').optimizers.values()]
    assert [scaler is not None for scaler in scalers] == [options == ('--amp', '--amp-dtype', 'float16')] * 2


def test_synchronised_batch_norms_are_refused_on_cpus():
    args = argparse.Namespace(split_bn=False, channels_last=False, distributed=True, sync_bn=True)
    with pytest.raises(UsageError, match='--sync-bn needs GPUs'):
        place_model(torch.nn.BatchNorm2d(3), args, torch.device('cpu'), None)
