"""timm's options keep their meaning with --repaint, or are refused."""

import pytest
import torch
from timm.data import Mixup

from tests.helpers import REPAINT, fine_tune_here, load_repaint, read_summary, run_script, train_here
from tests.tiny import adam_steps
from timm_repaint.engine import run as run_module
from timm_repaint.gan_optimizer import GanOptimizer
from timm_repaint.guard import NonFiniteLossError
from timm_repaint.paint import parse_args


def test_mixup_ends_at_its_epoch_in_the_repaint_phase_too(tmp_path, monkeypatch):
    enabled = []
    original = Mixup.__call__

    def spy(self, x, target):
        enabled.append(self.mixup_enabled)
        return original(self, x, target)

    monkeypatch.setattr(Mixup, '__call__', spy)
    train_here(tmp_path, *REPAINT, '--mixup', 0.5, '--mixup-off-epoch', 1, '--epochs', 3, '--repaint-epochs', 2)
    # An epoch has three batches for T; E and G learn from the third.
    assert enabled == [True] * 3 + [False] * 3


def test_the_gan_learning_rates_of_the_command_line_count_on_resume(tmp_path, monkeypatch, caplog):
    built, build = [], run_module.build_repaint

    def keep(*args):
        built.append(build(*args))
        return built[-1]

    monkeypatch.setattr(run_module, 'build_repaint', keep)
    run = train_here(tmp_path, *REPAINT, '--epochs', 4, '--stop-epoch', 1)
    train_here(tmp_path, *REPAINT, '--epochs', 4, '--stop-epoch', 2, '--resume', 'auto', '--repaint-g-lr', 0.0005)
    lrs = [{name: o.adam.param_groups[0]['lr'] for name, o in repaint.optimizers.items()} for repaint in built]
    assert lrs == [{'generator': g_lr, 'discriminator': 0.002} for g_lr in (0.001, 0.0005)]
    assert 'The state was saved with g_lr 0.001; it goes on with 0.0005.' in caplog.text
    assert load_repaint(run / 'last.pth.tar').config.g_lr == 0.0005


def test_no_resume_opt_starts_the_gan_optimizers_afresh_too(tmp_path):
    run = train_here(tmp_path, *REPAINT, '--epochs', 4, '--stop-epoch', 1)
    train_here(tmp_path, *REPAINT, '--epochs', 4, '--stop-epoch', 2, '--resume', 'auto', '--no-resume-opt')
    repaint = load_repaint(run / 'last.pth.tar')
    assert (repaint.updates, adam_steps(repaint)) == (6, (3, 1))  # as many as the second epoch has


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


def test_gradients_that_are_never_finite_stop_a_float16_run():
    network = torch.nn.Linear(2, 1, bias=False)
    before = network.weight.detach().clone()
    optimizer = GanOptimizer('generator', network, 0.1, max_nonfinite=5)
    network.weight.register_hook(lambda grad: grad * float('nan'))
    with pytest.raises(NonFiniteLossError):
        for _ in range(60):
            optimizer.add(network.weight.sum(), float16=True)
            optimizer.update()
    assert torch.equal(network.weight.detach(), before)


def test_a_class_map_may_leave_folders_out(tmp_path, shared_data):
    from tests.helpers import copy_images

    root = copy_images(shared_data / 'cifar10', tmp_path / 'images', 3, {'train': 8, 'validation': 2})
    names = sorted(path.name for path in (root / 'train').iterdir())[:2]
    (tmp_path / 'map.txt').write_text('\n'.join(names) + '\n')
    run = train_here(tmp_path, root, '--num-classes', 2, '--epochs', 1, '--class-map', tmp_path / 'map.txt')
    assert len(read_summary(run)) == 1
