"""train.py --repaint: what a run leaves behind, its variants, resume."""

import json
import math
from types import SimpleNamespace

import pytest
import timm
import torch
import yaml
from PIL import Image

from tests.helpers import (
    REPAINT,
    SCHEDULE,
    TINY,
    column,
    copy_images,
    load_checkpoint,
    load_repaint,
    mtimes,
    read_summary,
    run_script,
    same_tensors,
    train_here,
)
from tests.tiny import adam_steps, snapshot
from timm_repaint.data.shapes import ShapesDataset
from timm_repaint.engine.output import RunOutput
from timm_repaint.errors import UsageError
from timm_repaint.monitor.gallery import CAPTION_PX, GAP_PX, MIN_CELL_PX

FINITE_COLUMNS = ('train_loss', 'train_d_loss', 'train_g_gan', 'train_g_feat', 'train_diversity', 'eval_loss')


@pytest.fixture(scope='module')
def cifar(shared_data, tmp_path_factory):
    """Twelve training and four validation photographs of each of four classes."""
    folder = tmp_path_factory.mktemp('cifar')
    return copy_images(shared_data / 'cifar10', folder, 4, {'train': 12, 'validation': 4})


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """The whole repaint phase, two of three epochs."""
    return train_here(tmp_path_factory.mktemp('repaint'), *REPAINT, '--epochs', 3)


def gallery_size(rows, columns, side=MIN_CELL_PX):
    return CAPTION_PX + GAP_PX + columns * (side + GAP_PX), GAP_PX + rows * (side + GAP_PX)


def repaint_of(run):
    return load_repaint(run / 'last.pth.tar')


def assert_trained(run):
    rows = read_summary(run)
    assert rows
    for row in rows:
        assert all(abs(row[name]) < 1e3 for name in FINITE_COLUMNS), row
        assert row['train_skipped_updates'] == 0
        assert row['train_diversity'] > 0


def test_a_process_on_photographs_ends_with_the_fine_tune_command(cifar, tmp_path):
    args = (*TINY, *SCHEDULE, '--num-classes', 4, '--repaint', '--epochs', 2, '--output', tmp_path)
    done = run_script('train.py', cifar, *args, '--experiment', 'run')
    run = tmp_path / 'run'
    lines = [line.split(None, 1) for line in done.stderr.strip().splitlines()]
    assert {epoch['epoch'] for epoch in json.loads(done.stdout.removeprefix('--result\n'))} == {0}  # as timm's
    assert lines[-6][0] == 'Repaint'
    assert dict(lines[-5:]) == {
        'checkpoint': f'{run}/last.pth.tar',
        'pictures': f'{run}/gallery-0.png',
        'figures': f'{run}/summary.csv',
        'page': f'timm-repaint report html {run}',
        'next': f'python fine_tune.py {run}',
    }
    assert_trained(run)
    names = {'args.yaml', 'summary.csv', 'last.pth.tar', 'model_best.pth.tar', 'checkpoint-0.pth.tar'}
    assert {path.name for path in run.iterdir()} == names | {'gallery-0.png'}


def test_the_repaint_phase_is_three_quarters_of_the_epochs_in_one_schedule(run, tmp_path):
    plain = train_here(tmp_path, *REPAINT[1:], '--epochs', 3)
    assert column(run, 'epoch') == [0, 1]
    assert column(run, 'lr') == column(plain, 'lr')[:2]


def test_the_summary_tells_of_the_gan_and_of_both_kinds_of_images(run):
    (row, _) = read_summary(run)
    parts = {f'train_g_{part}' for part in ('gan', 'feat', 'kl', 'segment_kl')}
    rest = {'loss', 'd_loss', 'hits_repaint', 'hits_original', 'diversity', 'distance', 'changed_segments'}
    rest |= {'leak_original', 'leak_repaint', 'leak_swapped', 'leak_chance', 'skipped_updates'}
    assert row.keys() == parts | {f'train_{name}' for name in rest} | {
        'epoch', 'eval_loss', 'eval_top1', 'eval_top5', 'lr'
    }  # fmt: skip
    assert_trained(run)


def test_the_gallery_shows_eight_images_masks_and_three_repaints(run):
    (path,) = run.glob('gallery-*.png')
    with Image.open(path) as gallery:
        gallery.load()
        assert gallery.size == gallery_size(rows=5, columns=8)
    assert path.name == 'gallery-1.png'  # the last epoch's; the interval is ten


def test_the_checkpoint_is_plain_t_for_timm(run):
    path = run / 'last.pth.tar'
    state = load_checkpoint(path)['state_dict']
    model = timm.create_model('test_resnet', num_classes=10)
    model.load_state_dict(state, strict=True)
    read_by_timm = timm.create_model('test_resnet', num_classes=10, checkpoint_path=str(path))
    assert same_tensors(dict(read_by_timm.state_dict()), dict(state))


def test_the_validation_metrics_are_those_of_the_checkpoints_model(run):
    model = timm.create_model('test_resnet', num_classes=10, checkpoint_path=str(run / 'last.pth.tar')).eval()
    dataset = ShapesDataset('validation', 8, image_size=32)
    transform = timm.data.create_transform((3, 32, 32), mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=0.95)
    images, targets = zip(*[(transform(image), target) for image, target in dataset], strict=True)
    with torch.no_grad():
        logits, target = model(torch.stack(images)), torch.tensor(targets)
    last = read_summary(run)[-1]
    assert (logits.argmax(1) == target).float().mean().item() * 100 == last['eval_top1']
    assert torch.nn.functional.cross_entropy(logits, target).item() == pytest.approx(last['eval_loss'], rel=1e-4)


def test_the_same_seed_gives_the_same_summary(run, tmp_path):
    again = train_here(tmp_path, *REPAINT, '--epochs', 3)
    assert (again / 'summary.csv').read_text() == (run / 'summary.csv').read_text()


def test_workers_in_other_processes_give_the_same_masks_each_time(tmp_path):
    first, second = (train_here(tmp_path, *REPAINT, '--epochs', 1, '-j', 2, name=name) for name in ('one', 'two'))
    assert read_summary(first) == read_summary(second)


def test_saved_options_repeat_the_run(run, tmp_path):
    again = train_here(tmp_path, '-c', run / 'args.yaml')
    assert (again / 'summary.csv').read_text() == (run / 'summary.csv').read_text()


VARIANTS = {
    'mixup, cutmix, erasing': ('--mixup', '0.2', '--cutmix', '1.0', '--reprob', '0.5', '--smoothing', '0'),
    'mixup a pair at a time': ('--mixup', '0.2', '--mixup-mode', 'pair'),
    'erasing by pixel': ('--reprob', '1.0', '--remode', 'pixel', '--recount', '2'),
    'on top': ('--repaint-mix', 'both'),
    'every image, on top': ('--repaint-mix', 'both', '--repaint-prob', '1'),
    'batches of its own': ('--repaint-separate-batches',),
    'batches of its own, on top': ('--repaint-separate-batches', '--repaint-mix', 'both'),
    'every image': ('--repaint-prob', '1'),
    'one code an image': ('--repaint-latent', 'global'),
    'no task loss': ('--repaint-task-weight', '0'),
    'original gan': ('--repaint-gan-loss', 'original'),
    'no prefetcher': ('--no-prefetcher',),
    'no prefetcher, cutmix': ('--no-prefetcher', '--cutmix', '1.0'),
    'random augmentation': ('--aa', 'rand-m5-mstd0.5'),
    'accumulation': ('--grad-accum-steps', '2', '-b', '4'),
    'weight average': ('--model-ema', '--model-ema-decay', '0.5'),
    'adamw': ('--opt', 'adamw', '--lr', '0.001'),
    'automatic precision': ('--amp', '--amp-dtype', 'bfloat16'),
    'half-precision classifier': ('--model-dtype', 'bfloat16'),
    'channels last': ('--channels-last',),
    'several image sizes': ('--train-img-sizes', '32', '48'),
    'clipping': ('--clip-grad', '1.0'),
    'gradient checkpointing': ('--grad-checkpointing',),
    'cross-entropy per class': ('--bce-loss',),
    'schedule on updates': ('--sched-on-updates',),
    'other pattern': ('--repaint-schedule', '1:1'),
    'other model': ('--model', 'test_vit', '--img-size', '160', '-b', '4', '--train-num-samples', '12'),
    'odd batch': ('-b', '5'),
    'odd image size': ('--img-size', '45'),
}


SPADE = pytest.param(('--repaint-generator', 'spade'), marks=pytest.mark.slow)


@pytest.mark.parametrize('options', [*VARIANTS.values(), SPADE], ids=[*VARIANTS, 'full spade'])
def test_variants_train_to_finite_losses(options, tmp_path):
    run = train_here(tmp_path, *REPAINT, '--epochs', 2, '--repaint-epochs', 1, *options)
    assert_trained(run)


@pytest.mark.parametrize('weight', [0, 1])
def test_without_task_loss_the_generator_learns_nothing_from_the_classifier(weight, tmp_path):
    args = (*REPAINT, '--epochs', 1, '--repaint-task-weight', weight)
    first, second = (train_here(tmp_path, *args, '--lr', lr, name=f'lr {lr}') for lr in (0.05, 0.01))
    assert not same_tensors(*(load_checkpoint(run / 'last.pth.tar')['state_dict'] for run in (first, second)))
    generators = [snapshot(repaint_of(run).repainter) for run in (first, second)]
    assert same_tensors(*generators) == (weight == 0)


def test_torchcompile_keeps_plain_names_in_the_checkpoint(tmp_path):
    run = train_here(tmp_path, *REPAINT, '--epochs', 1, '--torchcompile', 'eager')
    assert_trained(run)
    timm.create_model('test_resnet', num_classes=10).load_state_dict(
        load_checkpoint(run / 'last.pth.tar')['state_dict']
    )
    assert not any('_orig_mod' in name for name in load_checkpoint(run / 'last.pth.tar')['repaint'])


def test_the_papers_recipe_runs(tmp_path):
    recipe = 'timm_repaint/recipes/paper.yaml'
    run = train_here(tmp_path, '-c', recipe, *REPAINT, '--epochs', 2, '--repaint-epochs', 1, '--lr', '1e-3')
    assert_trained(run)
    options = yaml.safe_load((run / 'args.yaml').read_text())
    assert (options['opt'], options['repaint_prob'], options['repaint_latent']) == ('rmsproptf', 1.0, 'global')


def test_distillation_runs_with_repaints(tmp_path, monkeypatch):
    def untrained(model_name, pretrained, **kwargs):
        return timm.create_model(model_name, **kwargs)

    monkeypatch.setattr('timm.task.distillation.create_model', untrained)
    run = train_here(tmp_path, *REPAINT, '--epochs', 1, '--kd-model-name', 'test_efficientnet')
    assert_trained(run)


def test_a_frozen_generator_of_another_run_stays_bit_by_bit(run, tmp_path):
    source = run / 'last.pth.tar'
    frozen = train_here(tmp_path, *REPAINT, '--epochs', 2, '--repaint-checkpoint', source, '--repaint-freeze')
    ours, theirs = repaint_of(frozen), repaint_of(run)
    assert ours.repainter.config == theirs.repainter.config
    assert same_tensors(snapshot(ours.repainter), snapshot(theirs.repainter))
    assert ours.discriminator is None and ours.optimizers == {}
    assert not any('discriminator' in name for name in load_checkpoint(frozen / 'last.pth.tar')['repaint'])
    assert all(row['train_diversity'] > 0 for row in read_summary(frozen))


def test_a_generator_of_another_run_goes_on_learning(run, tmp_path):
    args = ('--epochs', 1, '--repaint-checkpoint', run / 'last.pth.tar')
    started = train_here(tmp_path, *REPAINT, *args)
    before, after = (repaint_of(folder) for folder in (run, started))
    assert before.repainter.config == after.repainter.config
    assert not same_tensors(snapshot(before.repainter), snapshot(after.repainter))
    assert adam_steps(after) == (3, 1)  # its optimizers and discriminator begin anew


def test_a_generator_of_another_run_brings_its_own_shape(run, tmp_path):
    source = run / 'last.pth.tar'
    assert REPAINT[-2] == '--repaint-width'
    started = train_here(tmp_path, *REPAINT[:-2], '--epochs', 1, '--repaint-checkpoint', source)
    assert repaint_of(started).repainter.config == repaint_of(run).repainter.config


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--repaint-width', 4), 'width is 8 there, 4 here'),
        (('--repaint-detail', 'none'), 'detail is keep there, none here'),
        (('--repaint-latent', 'global', '--repaint-latent-dim', 5), 'latent is segment there, global here; latent_dim'),
        (('--mask', 'outlines', '--repaint-detail', 'swap'), 'detail is keep there, swap here'),
    ],
)
def test_a_generator_of_another_shape_than_asked_for_is_refused_by_name(run, tmp_path, options, message):
    source = run / 'last.pth.tar'
    with pytest.raises(UsageError, match=message) as error:
        train_here(tmp_path, *REPAINT, '--epochs', 2, '--repaint-checkpoint', source, *options)
    assert str(error.value).startswith(f'{source} holds another generator: ') and '\n' not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_resume_auto_goes_on_with_generator_and_schedule(run, tmp_path):
    args = (*REPAINT, '--epochs', 3, '--resume', 'auto')
    first = train_here(tmp_path, *args, '--stop-epoch', 1)
    assert adam_steps(repaint_of(first)) == (3, 1)
    first_row = (first / 'summary.csv').read_text()
    assert (run / 'summary.csv').read_text().startswith(first_row)
    resumed = train_here(tmp_path, *args)
    assert column(resumed, 'epoch') == [0, 1]
    assert column(resumed, 'lr') == column(run, 'lr')
    assert adam_steps(repaint_of(resumed)) == (6, 2)
    assert (resumed / 'summary.csv').read_text().startswith(first_row)


def test_resume_auto_leaves_a_finished_repaint_phase_alone(tmp_path):
    args = (*REPAINT, '--epochs', 2, '--resume', 'auto')
    run = train_here(tmp_path, *args)
    before = mtimes(run)
    train_here(tmp_path, *args)
    assert mtimes(run) == before


def test_resume_with_another_generator_names_what_differs(run, tmp_path):
    args = (*REPAINT, '--epochs', 3, '--resume', run / 'last.pth.tar', '--repaint-width', 4)
    with pytest.raises(ValueError, match='width is 8, here 4'):
        train_here(tmp_path, *args)
    assert not list(tmp_path.iterdir())


def test_resume_from_a_plain_run_says_how_to_start_from_it(tmp_path):
    plain = train_here(tmp_path, *REPAINT[1:], '--epochs', 2, name='plain')
    with pytest.raises(ValueError, match='--initial-checkpoint'):
        train_here(tmp_path, *REPAINT, '--epochs', 2, '--resume', plain / 'last.pth.tar', name='repaint')
    started = train_here(tmp_path, *REPAINT, '--epochs', 2, '--initial-checkpoint', plain / 'last.pth.tar')
    assert_trained(started)


def test_a_painter_without_a_network_has_no_number_of_parameters(tmp_path, caplog):
    train_here(tmp_path, *REPAINT[:-2], '--epochs', 2, '--repaint-generator', 'shift')
    assert 'Repaint: shift, without a network.' in caplog.text


def test_resume_from_a_run_of_version_0_1_says_how_to_start_from_it(run, tmp_path):
    checkpoint = load_checkpoint(run / 'last.pth.tar')
    checkpoint['task_state'] = {'repaint': checkpoint.pop('repaint')}  # where version 0.1 had it, in a form of its own
    torch.save(checkpoint, old := tmp_path / 'old.pth.tar')
    args = (*TINY, *SCHEDULE, *REPAINT, '--epochs', 3, '--output', tmp_path, '--experiment', 'run')
    done = run_script('train.py', *args, '--resume', old, fails=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f'error: {old} is of a run without --repaint, or of version 0.1, which is not resumed')
    assert last.endswith(f'start anew with --initial-checkpoint {old}')
    assert not (tmp_path / 'run').exists()


def test_unknown_values_of_the_printed_results_are_null(capsys):
    output = SimpleNamespace(saver=SimpleNamespace(best_metric=None), tensorboard=None)
    results = [{'epoch': 0, 'train': {'leak': math.nan, 'loss': math.inf, 'd_loss': 1.5}}]
    RunOutput.close(output, results, 'loss', as_timm=False)
    printed = json.loads(capsys.readouterr().out.removeprefix('--result\n'), parse_constant=pytest.fail)
    assert printed == [{'epoch': 0, 'train': {'leak': None, 'loss': None, 'd_loss': 1.5}}]


# Pictures where people look ------------------------------------------------------------------------------------------


# Without a GPU -------------------------------------------------------------------------------------------------------
