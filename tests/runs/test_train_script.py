"""train.py without `--repaint`: files, result, YAML, milestones, and the names that wrappers use."""

import csv
import json
from collections import OrderedDict

import pytest
import timm
import torch

import train
from tests.helpers import (
    SCHEDULE,
    SHAPES,
    TINY,
    column,
    load_checkpoint,
    mtimes,
    read_summary,
    run_script,
    same_tensors,
    train_here,
)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Two epochs on the built-in shapes."""
    return train_here(tmp_path_factory.mktemp('plain'), *SHAPES, '--epochs', 2)


def test_a_run_leaves_options_summary_and_checkpoints(run):
    names = {'args.yaml', 'summary.csv', 'last.pth.tar', 'model_best.pth.tar'}
    assert {path.name for path in run.iterdir()} == names | {'checkpoint-0.pth.tar', 'checkpoint-1.pth.tar'}
    assert column(run, 'epoch') == [0, 1]
    assert column(run, 'lr') == [0.05, 0.025]  # half a cosine


def test_the_summary_has_timms_columns(run):
    with open(run / 'summary.csv', newline='') as file:
        assert next(csv.reader(file)) == ['epoch', 'train_loss', 'eval_loss', 'eval_top1', 'eval_top5', 'lr']


def test_the_best_checkpoint_is_the_one_of_the_highest_top1(run):
    top1 = column(run, 'eval_top1')
    assert load_checkpoint(run / 'model_best.pth.tar')['metric'] == max(top1)
    assert load_checkpoint(run / 'last.pth.tar')['epoch'] == 1


def test_the_process_ends_with_the_results_as_json(tmp_path):
    done = run_script('train.py', *TINY, *SCHEDULE, *SHAPES, '--epochs', 2, '--output', tmp_path, '--experiment', 'run')
    _, result = done.stdout.split('--result\n')
    epochs = json.loads(result)
    rows = read_summary(tmp_path / 'run')
    assert {epoch['epoch']: epoch['validation']['top1'] for epoch in epochs} == {
        row['epoch']: row['eval_top1'] for row in rows
    }
    assert epochs[-1]['validation']['top1'] == max(row['eval_top1'] for row in rows)  # the best comes last


def test_saved_options_repeat_the_run(run, tmp_path):
    again = train_here(tmp_path, '-c', run / 'args.yaml')
    assert (again / 'summary.csv').read_text() == (run / 'summary.csv').read_text()


def test_a_run_without_a_name_is_called_by_time_model_and_size(tmp_path):
    train_here(tmp_path, *SHAPES, '--epochs', 1, '--experiment', '')
    (folder,) = tmp_path.iterdir()
    assert folder.name.endswith('-test_resnet-32')


def test_a_fresh_run_in_an_old_folder_starts_the_summary_anew(tmp_path):
    for _ in range(2):
        run = train_here(tmp_path, *SHAPES, '--epochs', 1)
    assert column(run, 'epoch') == [0]


def test_milestones_are_kept_and_validated_where_the_interval_skips(tmp_path):
    run = train_here(tmp_path, *SHAPES, '--epochs', 4, '--val-interval', 4, '--save-epochs', 2, 3)
    assert column(run, 'epoch') == [1, 2, 3]
    assert load_checkpoint(run / 'milestone-2.pth.tar')['epoch'] == 1
    assert load_checkpoint(run / 'milestone-3.pth.tar')['epoch'] == 2
    assert len(list(run.glob('milestone-*'))) == 2


def test_checkpoint_history_is_limited(tmp_path):
    run = train_here(tmp_path, *SHAPES, '--epochs', 3, '--checkpoint-hist', 1)
    assert len(list(run.glob('checkpoint-*'))) == 1


def test_stop_epoch_leaves_the_schedule_as_it_is(tmp_path):
    whole = train_here(tmp_path, *SHAPES, '--epochs', 4, name='whole')
    short = train_here(tmp_path, *SHAPES, '--epochs', 4, '--stop-epoch', 2, name='short')
    assert read_summary(short) == read_summary(whole)[:2]


@pytest.mark.parametrize('stop_epoch', [0, 3])
def test_a_stop_epoch_out_of_range_is_a_value_error_that_names_it(stop_epoch, tmp_path):
    with pytest.raises(ValueError, match='stop-epoch'):
        train_here(tmp_path, *SHAPES, '--epochs', 2, '--stop-epoch', stop_epoch)


# Resume --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Four epochs without a break."""
    return train_here(tmp_path_factory.mktemp('whole'), *SHAPES, '--epochs', 4)


def test_resume_from_a_file_goes_on_behind_its_epoch(tmp_path, whole):
    first = train_here(tmp_path, *SHAPES, '--epochs', 4, '--stop-epoch', 2, name='first')
    second = train_here(tmp_path, *SHAPES, '--epochs', 4, '--resume', first / 'last.pth.tar', name='second')
    assert column(second, 'epoch') == [2, 3]
    assert column(second, 'lr') == column(whole, 'lr')[2:]


def test_resume_auto_goes_on_in_place(tmp_path, whole):
    args = (*SHAPES, '--epochs', 4, '--resume', 'auto')
    first = train_here(tmp_path, *args, '--stop-epoch', 2)
    rows = (first / 'summary.csv').read_text()
    run = train_here(tmp_path, *args)
    assert (run / 'summary.csv').read_text().startswith(rows)
    assert column(run, 'epoch') == [0, 1, 2, 3]
    assert column(run, 'lr') == column(whole, 'lr')
    assert {path.name for path in run.glob('checkpoint-*')} == {f'checkpoint-{epoch}.pth.tar' for epoch in range(4)}


def test_resume_auto_keeps_the_best_metric_of_earlier_epochs(tmp_path):
    args = (*SHAPES, '--epochs', 4, '--resume', 'auto')
    train_here(tmp_path, *args, '--stop-epoch', 2)
    run = train_here(tmp_path, *args, '--lr', '1e-9')  # the weights stay, so only ties can follow
    best = load_checkpoint(run / 'model_best.pth.tar')
    top1 = column(run, 'eval_top1')
    assert best['metric'] == max(top1)
    assert best['epoch'] == top1.index(max(top1))


def test_resume_auto_drops_rows_behind_the_checkpoint(tmp_path):
    args = (*SHAPES, '--epochs', 3, '--resume', 'auto')
    run = train_here(tmp_path, *args, '--stop-epoch', 2)
    with open(run / 'summary.csv', 'a') as file:  # as if killed between summary and checkpoint
        file.write('2,9,9,9,9,9\n')
    run = train_here(tmp_path, *args)
    assert column(run, 'epoch') == [0, 1, 2]
    assert column(run, 'train_loss')[2] != 9


def test_resume_auto_leaves_a_finished_run_alone(tmp_path):
    args = (*SHAPES, '--epochs', 2, '--resume', 'auto')
    run = train_here(tmp_path, *args)
    before = mtimes(run)
    train_here(tmp_path, *args)
    assert mtimes(run) == before


def test_resume_auto_needs_the_name_of_the_experiment(tmp_path):
    args = (*TINY, *SCHEDULE, *SHAPES, '--output', tmp_path, '--resume', 'auto')
    done = run_script('train.py', *args, fails=True)
    assert 'error: --resume auto needs --experiment' in done.stderr
    assert 'Traceback' not in done.stderr
    assert not list(tmp_path.iterdir())


# Names that wrappers of timm's script use ----------------------------------------------------------------------------


def test_main_uses_the_functions_that_a_wrapper_puts_into_the_module(tmp_path, monkeypatch):
    calls = []

    def create_model(name, **kwargs):
        calls.append('create_model')
        return timm.create_model(name, **kwargs)

    def train_one_epoch(epoch, model, loader, optimizer, args, **kwargs):
        calls.append('train_one_epoch')
        return OrderedDict(loss=1.0 + epoch)

    def validate(model, loader, loss_fn, args, **kwargs):
        calls.append('validate')
        return OrderedDict(loss=0.5, top1=50.0, top5=75.0)

    for function in (create_model, train_one_epoch, validate):
        monkeypatch.setattr(train, function.__name__, function)
    run = train_here(tmp_path, *SHAPES, '--epochs', 2)
    assert calls == ['create_model', *2 * ['train_one_epoch', 'validate']]
    assert column(run, 'train_loss') == [1.0, 2.0]
    assert column(run, 'eval_top1') == [50.0, 50.0]


def test_parser_and_parse_args_are_at_module_level(monkeypatch):
    monkeypatch.setattr('sys.argv', ['train.py', '--model', 'vit_tiny', '--lr', '0.1'])
    args, args_text = train._parse_args()
    assert (args.model, args.lr) == ('vit_tiny', 0.1)
    assert 'model: vit_tiny\n' in args_text
    assert train.parser.get_default('batch_size') == 128


# Other options of timm's script --------------------------------------------------------------------------------------

SMOKE = {
    'weight average': ('--model-ema', '--model-ema-decay', '0.5'),
    'weight average on the cpu with warm-up': ('--model-ema', '--model-ema-force-cpu', '--model-ema-warmup'),
    'no prefetcher': ('--no-prefetcher',),
    'no prefetcher, mixup': ('--no-prefetcher', '--mixup', '0.2'),
    'cutmix off later': ('--cutmix', '1.0', '--mixup-off-epoch', '1'),
    'accumulation with a remainder': ('--grad-accum-steps', '3', '-b', '4'),
    'schedule on updates': ('--sched-on-updates', '--warmup-epochs', '1'),
    'automatic precision': ('--amp', '--amp-dtype', 'bfloat16'),
    'half-precision model': ('--model-dtype', 'bfloat16'),
    'channels last': ('--channels-last',),
    'torchscript': ('--torchscript',),
    'several image sizes': ('--train-img-sizes', '32', '48'),
    'fixed number of batches': ('--train-batches-per-epoch', '3'),
    'cross-entropy per class': ('--bce-loss', '--bce-target-thresh', '0.2'),
    'adaptive clipping': ('--clip-grad', '0.02', '--clip-mode', 'agc'),
    'lamb': ('--opt', 'lamb'),
    'lookahead': ('--opt', 'lookahead_adamw'),
    'plateau': ('--sched', 'plateau'),
    'no validation': ('--val-split', ''),
    'gradient checkpointing': ('--grad-checkpointing',),
}


@pytest.mark.parametrize('options', SMOKE.values(), ids=SMOKE.keys())
def test_options_of_timms_script_train_to_a_finite_loss(options, tmp_path):
    run = train_here(tmp_path, *SHAPES, '--epochs', 2, *options)
    losses = column(run, 'train_loss')
    assert len(losses) == 2
    assert all(0 < loss < 20 for loss in losses)


def test_naflex_loader_trains_to_a_finite_loss(tmp_path):
    model = ('--model', 'naflexvit_base_patch16_gap', '--model-kwargs', 'depth=1', 'embed_dim=64', 'num_heads=2')
    naflex = ('--naflex-loader', '--naflex-train-seq-lens', '4', '9', '--naflex-max-seq-len', '9')
    run = train_here(tmp_path, *SHAPES, '--epochs', 1, *model, *naflex)
    assert 0 < column(run, 'train_loss')[0] < 20


def test_tensorboard_gets_an_event_file(tmp_path):
    run = train_here(tmp_path, *SHAPES, '--epochs', 1, '--log-tensorboard')
    (events,) = (run / 'tensorboard').iterdir()
    assert events.name.startswith('events.out.tfevents')
    assert b'train/loss' in events.read_bytes()


@pytest.mark.parametrize('kind', ['logit', 'feature'])
def test_distillation_trains_the_student_alone(kind, tmp_path, monkeypatch):
    def untrained(model_name, pretrained, **kwargs):
        return timm.create_model(model_name, **kwargs)

    monkeypatch.setattr('timm.task.distillation.create_model', untrained)  # pretrained teachers come by network
    run = train_here(
        tmp_path, *SHAPES, '--epochs', 1, '--kd-model-name', 'test_efficientnet', '--kd-distill-type', kind
    )
    assert 0 < column(run, 'train_loss')[0] < 20
    state = load_checkpoint(run / 'last.pth.tar')['state_dict']
    timm.create_model('test_resnet', num_classes=10).load_state_dict(state)


def test_the_weight_average_is_saved_and_decides(tmp_path):
    run = train_here(tmp_path, *SHAPES, '--epochs', 1, '--model-ema', '--model-ema-decay', '0.5')
    checkpoint = load_checkpoint(run / 'last.pth.tar')
    assert checkpoint['state_dict'].keys() == checkpoint['state_dict_ema'].keys()
    assert not same_tensors(checkpoint['state_dict'], checkpoint['state_dict_ema'])


def test_two_runs_with_one_seed_are_equal_and_another_seed_differs(run, tmp_path):
    same = train_here(tmp_path, *SHAPES, '--epochs', 2, name='same')
    other = train_here(tmp_path, *SHAPES, '--epochs', 2, '--seed', 43, name='other')
    assert read_summary(same) == read_summary(run)
    assert read_summary(other) != read_summary(run)
    ours, theirs = (load_checkpoint(folder / 'last.pth.tar')['state_dict'] for folder in (same, run))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
