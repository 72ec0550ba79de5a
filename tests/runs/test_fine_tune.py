"""fine_tune.py: the classifier goes on alone where the repaint phase stopped."""

import json
import shlex
import shutil
from collections import OrderedDict
from functools import partial

import pytest
import timm
import torch
import yaml
from timm.utils import ModelEmaV3, unwrap_model

import fine_tune
from tests.helpers import (
    REPAINT,
    column,
    fine_tune_here,
    load_checkpoint,
    mtimes,
    read_summary,
    run_script,
    same_tensors,
    train_here,
)
from timm_repaint import classification
from timm_repaint.engine import cue_conflict
from timm_repaint.engine.run import run_training


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A complete repaint phase, three of four epochs."""
    return train_here(tmp_path_factory.mktemp('repaint'), *REPAINT, '--epochs', 4)


def error_of(capsys, run, *args):
    """Last line of what a refused call says."""
    with pytest.raises(SystemExit) as stop:
        fine_tune_here(run, *args)
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_the_folder_alone_is_enough_and_the_schedule_goes_on(run, tmp_path):
    plain = train_here(tmp_path, *REPAINT[1:], '--epochs', 4)
    phase_one = mtimes(run)
    run_script('fine_tune.py', run)
    folder = run / 'fine_tune'
    assert column(folder, 'epoch') == [3]
    assert column(run, 'lr') + column(folder, 'lr') == column(plain, 'lr')
    assert {name: time for name, time in mtimes(run).items() if name in phase_one} == phase_one
    names = {
        'args.yaml',
        'summary.csv',
        'last.pth.tar',
        'model_best.pth.tar',
        'checkpoint-3.pth.tar',
    }
    assert {path.name for path in folder.iterdir()} == names
    timm.create_model('test_resnet', num_classes=10, checkpoint_path=str(folder / 'last.pth.tar'))


def test_it_is_as_much_a_plain_run_that_resumed_there_with_its_random_numbers(run, tmp_path, monkeypatch):
    monkeypatch.setattr(classification, 'run_training', partial(run_training, exact_resume=True))
    plain = train_here(tmp_path, *REPAINT[1:], '--epochs', 4, '--resume', plain_checkpoint(run, tmp_path))
    assert read_summary(fine_tune_here(run)) == read_summary(plain)


def plain_checkpoint(run, folder):
    """The run's last checkpoint without what belongs to the generator."""
    checkpoint = load_checkpoint(run / 'last.pth.tar')
    del checkpoint['repaint']
    torch.save(checkpoint, folder / 'plain.pth.tar')
    return folder / 'plain.pth.tar'


def test_it_starts_from_the_classifiers_weights_and_its_optimizers_state(run, monkeypatch):
    seen = {}

    def train_one_epoch(epoch, model, loader, optimizer, args, **kwargs):
        seen.setdefault('state_dict', {name: value.clone() for name, value in model.state_dict().items()})
        seen.setdefault('momentum', [optimizer.state[p]['momentum_buffer'].clone() for p in model.parameters()])
        return OrderedDict(loss=1.0)

    monkeypatch.setattr(fine_tune, 'train_one_epoch', train_one_epoch)
    fine_tune_here(run)
    last = load_checkpoint(run / 'last.pth.tar')
    assert same_tensors(seen['state_dict'], dict(last['state_dict']))
    saved = [state['momentum_buffer'] for state in last['optimizer']['state'].values()]
    assert sorted(b.sum().item() for b in saved) == sorted(b.sum().item() for b in seen['momentum'])


def test_its_images_are_originals(run):
    """Its checkpoint has no generator, and its batches three channels: T alone runs."""
    folder = fine_tune_here(run)
    checkpoint = load_checkpoint(folder / 'last.pth.tar')
    assert 'repaint' not in checkpoint and not checkpoint.get('task_state')
    options = yaml.safe_load((folder / 'args.yaml').read_text())
    assert options['repaint'] is False
    assert not any(name.startswith('train_g_') for name in read_summary(folder)[0])


def test_a_repaint_phase_of_version_0_1_is_fine_tuned_like_one_of_today(run, tmp_path):
    today, old = (shutil.copytree(run, tmp_path / name / run.name) for name in ('today', 'old'))
    checkpoint = load_checkpoint(run / 'last.pth.tar')
    del checkpoint['repaint']
    torch.save({**checkpoint, 'task_state': {'repaint': {'optimizers': {}}}}, old / 'last.pth.tar')
    assert read_summary(fine_tune_here(old)) == read_summary(fine_tune_here(today))
    assert 'task_state' not in load_checkpoint(old / 'fine_tune' / 'last.pth.tar')


def test_options_of_the_command_line_come_first(run):
    folder = fine_tune_here(run, '--epochs', 6, '-b', 4, '--lr', '0.001', '--mixup', '0.1')
    assert column(folder, 'epoch') == [3, 4, 5]
    assert column(folder, 'lr')[0] == pytest.approx(0.0005)  # half-way down a cosine of six epochs
    options = yaml.safe_load((folder / 'args.yaml').read_text())
    assert (options['batch_size'], options['mixup']) == (4, 0.1)


def test_resume_auto_leaves_a_finished_phase_alone_and_goes_on_in_an_unfinished_one(run):
    fine_tune_here(run, '--epochs', 6, '--stop-epoch', 5)
    folder = fine_tune_here(run, '--epochs', 6, '--resume', 'auto')
    assert column(folder, 'epoch') == [3, 4, 5]
    before = mtimes(folder)
    fine_tune_here(run, '--epochs', 6, '--resume', 'auto')
    assert mtimes(folder) == before


def test_a_fine_tuning_of_another_name_starts_from_the_run_and_goes_on_from_itself(run):
    fine_tune_here(run)
    for stop in (4, 5):
        fine_tune_here(run, '--epochs', 6, '--stop-epoch', stop, '--experiment', 'second', '--resume', 'auto')
    assert column(run / 'second', 'epoch') == [3, 4] and not (run / 'second' / 'earlier-1').exists()


def test_the_weight_average_goes_on(tmp_path):
    run = train_here(tmp_path, *REPAINT, '--epochs', 2, '--model-ema', '--model-ema-decay', '0.999999')
    folder = fine_tune_here(run)
    before, after = (load_checkpoint(path / 'last.pth.tar')['state_dict_ema'] for path in (run, folder))
    name = next(name for name in before if name.endswith('weight'))
    assert torch.allclose(before[name], after[name], atol=1e-4)


def test_an_optimizer_around_another_goes_on(tmp_path):
    run = train_here(tmp_path, *REPAINT, '--epochs', 2, '--opt', 'lookahead_adamw', '--lr', '0.001')
    before = load_checkpoint(run / 'last.pth.tar')['optimizer']['state']
    after = load_checkpoint(fine_tune_here(run) / 'last.pth.tar')['optimizer']['state']
    assert after[0]['step'] == 2 * before[0]['step'] > 0


def test_cue_conflict_is_measured_after_both_phases(tmp_path):
    run = train_here(tmp_path, *REPAINT, '--epochs', 4, '--cue-conflict')
    folder = fine_tune_here(run)
    first, second = (json.loads((path / 'cue_conflict.json').read_text()) for path in (run, folder))
    assert (first['epochs'], second['epochs']) == (3, 4)
    assert first['images'] == second['images'] == 8


def test_cue_conflict_is_of_the_weight_average_where_there_is_one(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(cue_conflict, 'unwrap_model', lambda model: seen.append(model) or unwrap_model(model))
    train_here(tmp_path, *REPAINT, '--epochs', 1, '--cue-conflict', '--model-ema')
    assert isinstance(seen[0], ModelEmaV3)


def test_mask_options_of_the_run_give_no_warning(tmp_path, caplog):
    run = train_here(tmp_path, *REPAINT, '--epochs', 2, '--fh-scale', 30)
    caplog.clear()
    fine_tune_here(run)
    assert 'do nothing' not in caplog.text


# Refused -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('words', [('-c', 'robust'), ('--repaint',)])
def test_repaints_are_refused(run, words, capsys):
    assert 'fine-tuning is on originals, but --repaint is set; leave it out' in error_of(capsys, run, *words)


def test_a_missing_folder_is_named(tmp_path, capsys):
    assert f'{tmp_path}/nothing/args.yaml does not exist' in error_of(capsys, tmp_path / 'nothing')


@pytest.mark.parametrize(
    ('option', 'value', 'message'),
    [
        ('epochs', 'many', "epochs wants an integer, not 'many'"),
        ('img_size', [1], 'img_size wants an integer, not [1]'),
        ('model_kwargs', ['a'], "model_kwargs wants a mapping of names to values, not ['a']"),
        ('amp', 'no', "amp wants true or false, not 'no'"),
    ],
)
def test_an_option_that_was_edited_into_another_type_is_named_with_its_file(
    option, value, message, run, tmp_path, capsys
):
    options = yaml.safe_load((run / 'args.yaml').read_text())
    (tmp_path / 'args.yaml').write_text(yaml.safe_dump({**options, option: value}))
    assert f'{tmp_path}/args.yaml: {message}' in error_of(capsys, tmp_path)


def test_a_run_without_a_checkpoint_is_refused(run, tmp_path, capsys):
    (tmp_path / 'args.yaml').write_text((run / 'args.yaml').read_text())
    assert 'the run has no checkpoint yet' in error_of(capsys, tmp_path)


def test_a_plain_run_is_refused(tmp_path, capsys):
    plain = train_here(tmp_path, *REPAINT[1:], '--epochs', 1)
    assert 'is a run without --repaint' in error_of(capsys, plain)
    assert not (plain / 'fine_tune').exists()


def test_a_run_of_a_detector_is_refused_with_its_command(run, tmp_path, capsys):
    options = yaml.safe_load((run / 'args.yaml').read_text())
    (tmp_path / 'args.yaml').write_text(
        yaml.safe_dump({**options, 'scale_jitter': [1, 1], 'pretrained_backbone': True})
    )
    told = error_of(capsys, tmp_path)
    assert f'fine-tune it with: timm-repaint detect fine-tune {tmp_path}' in told


@pytest.mark.parametrize('stop', [('--stop-epoch', 1), ('--epochs', 3)], ids=['stopped', 'interrupted'])
def test_an_unfinished_repaint_phase_is_refused_with_the_command_that_finishes_it(stop, tmp_path, capsys):
    run = train_here(tmp_path, *REPAINT, '--epochs', 3, '--stop-epoch', 1, name='my run')
    if stop[0] == '--epochs':  # as an interrupt leaves it
        options = (run / 'args.yaml').read_text()
        (run / 'args.yaml').write_text(options.replace('stop_epoch: 1', 'stop_epoch: null'))
    message = error_of(capsys, run)
    assert 'is at epoch 1 of the 2 of its repaint phase' in message
    _, command = message.split(': python ')
    run_script(*shlex.split(command))
    assert column(run, 'epoch') == [0, 1]
    assert column(fine_tune_here(run), 'epoch') == [2]


def test_another_model_is_refused(run, tmp_path):
    done = run_script('fine_tune.py', run, '--model', 'test_efficientnet', fails=True)
    assert 'does not fit --model test_efficientnet' in done.stderr
    assert 'Traceback' not in done.stderr


def test_another_optimizer_starts_afresh(run):
    folder = fine_tune_here(run, '--opt', 'adamw', '--lr', '0.001')
    (group, _) = load_checkpoint(folder / 'last.pth.tar')['optimizer']['param_groups']
    assert 'betas' in group
    assert column(folder, 'lr')[0] < 0.001
