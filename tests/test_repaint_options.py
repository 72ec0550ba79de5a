"""timm's options keep their meaning with --repaint, or are refused."""

import pytest
import torch
from timm.data import Mixup

from tests.helpers import REPAINT, fine_tune_here, read_summary, run_script, train_here
from timm_repaint.gan_optimizer import NonFiniteLossError
from timm_repaint.paint import parse_args


def test_mixup_ends_at_its_epoch_in_the_repaint_phase_too(tmp_path, monkeypatch):
    enabled = []
    original = Mixup.__call__

    def spy(self, x, target):
        enabled.append(self.mixup_enabled)
        return original(self, x, target)

    monkeypatch.setattr(Mixup, '__call__', spy)
    train_here(tmp_path, *REPAINT, '--mixup', 0.5, '--mixup-off-epoch', 1, '--epochs', 3, '--repaint-epochs', 2)
    # An epoch has three batches for T; E and G learn from its own pass over the third.
    assert enabled == [True] * 3 + [False] * 3


def test_the_gan_learning_rates_of_the_command_line_count_on_resume(tmp_path):
    run = train_here(tmp_path, *REPAINT, '--epochs', 4, '--stop-epoch', 1)
    train_here(tmp_path, *REPAINT, '--epochs', 4, '--stop-epoch', 2, '--resume', 'auto', '--repaint-g-lr', 0.0005)
    optimizers = torch.load(run / 'last.pth.tar', weights_only=False)['task_state']['repaint']['optimizers']
    assert optimizers['generator']['adam']['param_groups'][0]['lr'] == 0.0005
    assert optimizers['discriminator']['adam']['param_groups'][0]['lr'] == 0.002


def test_no_resume_opt_starts_the_gan_optimizers_afresh_too(tmp_path):
    run = train_here(tmp_path, *REPAINT, '--epochs', 4, '--stop-epoch', 1)
    train_here(tmp_path, *REPAINT, '--epochs', 4, '--stop-epoch', 2, '--resume', 'auto', '--no-resume-opt')
    state = torch.load(run / 'last.pth.tar', weights_only=False)['task_state']['repaint']['optimizers']
    assert {entry['step'].item() for entry in state['generator']['adam']['state'].values()} == {1.0}


@pytest.mark.parametrize('batch', [4, 8])
def test_split_batch_norm_always_keeps_an_original(tmp_path, batch):
    run = train_here(tmp_path, *REPAINT, '--epochs', 2, '-b', batch, '--repaint-prob', 0.95, '--repaint-split-bn')
    (row,) = read_summary(run)
    assert row['train_loss'] == row['train_loss'] and row['train_hits_original'] == row['train_hits_original']
    weights = torch.load(run / 'last.pth.tar', weights_only=False)['state_dict']
    assert any(value.abs().sum() > 0 for name, value in weights.items() if name.endswith('running_mean'))


def test_the_gallery_keeps_its_interval_where_validation_is_skipped(tmp_path):
    options = ('--epochs', 8, '--repaint-epochs', 4, '--val-interval', 4, '--repaint-gallery-interval', 2)
    run = train_here(tmp_path, *REPAINT, *options)
    assert {path.name for path in run.glob('gallery-*.png')} == {'gallery-1.png', 'gallery-3.png'}


def test_nothing_left_to_fine_tune_is_said(tmp_path, capsys):
    run = train_here(tmp_path, *REPAINT, '--epochs', 1, '--repaint-epochs', 1)
    with pytest.raises(SystemExit):
        fine_tune_here(run)
    assert 'nothing is left to fine-tune' in capsys.readouterr().err
    assert not (run / 'fine_tune').exists()


@pytest.mark.parametrize('option', [('--resplit',), ('--variable-batch-loss-scale', 'linear')])
def test_options_without_a_meaning_are_refused(tmp_path, capsys, option):
    with pytest.raises(SystemExit):
        train_here(tmp_path, *REPAINT, '--epochs', 2, *option)
    assert option[0] in capsys.readouterr().err


def test_painting_into_the_images_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse_args(['run', str(tmp_path), str(tmp_path / 'out')])
    assert 'give a folder outside' in capsys.readouterr().err


def test_a_file_that_is_no_checkpoint_is_named_in_one_line(tmp_path):
    args = ('--dataset', 'shapes', '--device', 'cpu', '--model', 'test_resnet', '--output', tmp_path, '--repaint')
    done = run_script('train.py', *args, '--repaint-checkpoint', 'train.py', fails=True)
    assert done.stderr.strip().splitlines()[-1].startswith('error: train.py is not a checkpoint')


def test_gradients_that_are_never_finite_stop_a_float16_run(monkeypatch):
    from timm.utils import NativeScaler

    from timm_repaint.gan_optimizer import GanOptimizer

    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = GanOptimizer('generator', [weight], 0.1, NativeScaler(device='cpu'), max_nonfinite=5)
    with pytest.raises(NonFiniteLossError):
        for _ in range(60):
            loss = weight.sum()
            weight.register_hook(lambda grad: grad * float('nan'))
            optimizer.backward(loss, need_update=True)
    assert torch.equal(weight.detach(), torch.ones(2))


def test_a_class_map_may_leave_folders_out(tmp_path, shared_data):
    from tests.helpers import copy_images

    root = copy_images(shared_data / 'cifar10', tmp_path / 'images', 3, {'train': 8, 'validation': 2})
    names = sorted(path.name for path in (root / 'train').iterdir())[:2]
    (tmp_path / 'map.txt').write_text('\n'.join(names) + '\n')
    run = train_here(tmp_path, root, '--num-classes', 2, '--epochs', 1, '--class-map', tmp_path / 'map.txt')
    assert len(read_summary(run)) == 1
