"""The paper's tables: every recipe is sound, and runs fill the tables."""

import csv
from pathlib import Path

import pytest
import yaml

from tests.helpers import run_script, without_padding
from timm_repaint.detection.options import check_detection
from timm_repaint.errors import UsageError
from timm_repaint.options import build_config_parser, build_parser, check_options, parse_args
from timm_repaint.options.roles import REPAINT_OPTIONS
from timm_repaint.report.tables import missing_commands, write_tables
from timm_repaint.report.tables_runs import (
    DETECTION,
    FIRST_PHASES,
    RECIPES,
    load_recipe,
    load_recipes,
    paper_figures,
    read_runs,
    recipe_parser,
    recipe_path,
)

NAMES = sorted(path.stem for path in RECIPES.glob('*.yaml'))
DETECTION_NAMES = sorted(path.stem for path in DETECTION.glob('*.yaml'))


def parse_recipe(name, *argv):
    path = recipe_path(name)
    parser = recipe_parser(path)
    args, _ = parse_args(parser, build_config_parser(), ['-c', str(path), *argv])
    (check_detection if path.is_relative_to(DETECTION) else check_options)(parser, args)
    return args


def write_run(folder, recipe, seed, value, **changes):
    """What a finished run of a recipe leaves, with a validation figure of our choice, and the other 10 above."""
    name = f'{recipe}-seed{seed}'
    options = {**vars(parse_recipe(recipe)), 'experiment': name, 'seed': seed, **changes}
    run = folder / name
    last = run / 'fine_tune' if options['repaint'] else run
    last.mkdir(parents=True)
    for place in {run, last}:
        (place / 'args.yaml').write_text(yaml.safe_dump(options))
    metrics = 'eval_map,eval_ap50' if recipe in DETECTION_NAMES else 'eval_top1,eval_top5'
    epoch = (options['stop_epoch'] or options['epochs']) - 1
    (last / 'summary.csv').write_text(f'epoch,train_loss,{metrics},lr\n{epoch},1,{value},{value + 10},0.1\n')
    return run


def test_every_figure_has_a_recipe_and_every_recipe_a_figure():
    used = set(paper_figures()[['recipe', 'baseline']].to_numpy().ravel())
    assert used | set(FIRST_PHASES.values()) == {*NAMES, *DETECTION_NAMES}


@pytest.mark.parametrize('name', NAMES)
def test_a_recipe_has_real_options_that_fit_together(name, tmp_path):
    weights = tmp_path / 'weights.pth'
    weights.touch()
    load_recipe(build_parser(), recipe_path(name))
    args = parse_recipe(name, '--mask-checkpoint', str(weights))
    assert args.experiment == name
    assert (args.epochs, args.lr, args.opt, args.decay_epochs, args.decay_rate) == (200, 0.12, 'rmsproptf', 3, 0.9)
    assert args.repaint == ('repaint' in name or 'spade' in name)
    if args.repaint:
        assert (args.repaint_epochs, args.repaint_g_lr, args.repaint_d_lr) == (150, 1e-4, 4e-4)


@pytest.mark.parametrize('name', DETECTION_NAMES)
def test_a_recipe_of_detection_has_the_papers_settings(name, tmp_path):
    weights = tmp_path / 'weights.pth'
    weights.touch()
    args = parse_recipe(name, '--mask-checkpoint', str(weights))
    assert (args.experiment, args.model) == (name, f'tf_efficientdet_{name.split("-")[1]}')
    assert (args.epochs, args.lr, args.opt, args.sched, args.eval_metric) == (200, 0.06, 'rmsproptf', 'cosine', 'map')
    assert args.warmup_epochs > 0
    assert args.repaint == ('repaint' in name)
    if args.repaint:
        assert (args.repaint_epochs, args.repaint_g_lr, args.repaint_d_lr) == (150, 1e-4, 4e-4)


def test_an_arm_differs_from_repaint_or_the_baseline_by_its_name_alone():
    recipes = load_recipes()

    def changes(name, other):
        return {key for key, value in recipes[name].items() if value != recipes[other][key]}

    assert changes('resnet50-repaint-fh', 'resnet50-repaint') == {'mask'}
    assert changes('resnet50-repaint-no-task-loss', 'resnet50-repaint') == {'repaint_task_weight'}
    assert changes('resnet50-spade', 'resnet50-repaint') == {'repaint_generator', 'repaint_width'}
    assert changes('resnet50-cutmix-dropblock-repaint', 'resnet50-repaint') == {'cutmix', 'drop_block'}
    assert changes('resnet50-repaint-1percent', 'resnet50-baseline-1percent') == changes(
        'resnet50-repaint', 'resnet50-baseline'
    )
    assert changes('efficientnet-b3-repaint', 'resnet50-repaint') == {'model', 'img_size'}
    assert changes('resnet50-isda', 'resnet50-baseline') == {'isda', 'smoothing'}
    assert changes('efficientdet-d2-repaint', 'efficientdet-d0-repaint') == {'model'}
    assert changes('efficientdet-d0-repaint-fh', 'efficientdet-d0-repaint') == {'mask'}
    assert changes('efficientdet-d0-repaint-10percent', 'efficientdet-d0-repaint') == {'train_fraction'}


def test_detection_repaints_as_classification_does():
    recipes = load_recipes()
    ours, other = recipes['efficientdet-d0-repaint'], recipes['resnet50-repaint']
    keys = [key for key in ours if key in REPAINT_OPTIONS]
    assert len(keys) > 20 and {key for key in keys if ours[key] != other[key]} == set()


def test_repaint_is_that_of_the_papers_recipe_but_for_the_masks():
    path = RECIPES.parent / 'paper.yaml'
    options = load_recipe(build_parser(), path)
    ours = load_recipes()['resnet50-repaint']
    assert {key for key, value in options.items() if ours[key] != value} == {'mask'}


def test_a_key_that_no_option_has_is_named(tmp_path):
    path = tmp_path / 'odd.yaml'
    path.write_text('model: resnet50\nrepaint_colour: red\n')
    with pytest.raises(UsageError, match=r'odd\.yaml names repaint_colour, but no option is called so'):
        load_recipe(build_parser(), path)


@pytest.fixture
def runs(tmp_path):
    for seed, (baseline, repaint) in {1: (74.0, 75.0), 2: (74.4, 76.0)}.items():
        write_run(tmp_path / 'runs', 'mobilenetv2-baseline', seed, baseline)
        write_run(tmp_path / 'runs', 'mobilenetv2-repaint', seed, repaint)
    return tmp_path / 'runs'


def table_rows(output):
    with open(output / 'tables.csv', newline='') as file:
        return {(row['table'], row['row']): row for row in csv.DictReader(file)}


def test_a_place_where_no_folder_can_be_is_told(tmp_path):
    (tmp_path / 'afile').write_text('mine')
    with pytest.raises(UsageError, match=r'--output .*afile is no folder; name one'):
        write_tables([], tmp_path / 'afile', [1])
    with pytest.raises(UsageError, match=r'cannot write .*afile/x/tables\.md: Not a directory'):
        write_tables([], tmp_path / 'afile' / 'x', [1])
    assert (tmp_path / 'afile').read_text() == 'mine'


@pytest.mark.parametrize('name', ['tables.md', 'tables.csv'])
def test_tables_of_others_stay_and_ours_are_written_again(tmp_path, name):
    write_tables([], tmp_path, [1])
    write_tables([], tmp_path, [1])
    (tmp_path / name).write_text('mine')
    with pytest.raises(UsageError, match=rf'{name} was there before and is no table of ours: give another --output'):
        write_tables([], tmp_path, [1])
    assert (tmp_path / name).read_text() == 'mine'


def test_runs_fill_the_tables_and_missing_ones_are_shown(runs, tmp_path, capsys):
    out = tmp_path / 'out'
    write_tables([runs], out, [1, 2, 3], Path('output/tables'))
    text = without_padding((out / 'tables.md').read_text())
    assert '| MobileNetV2, Repaint | 75.15 | 75.50 | +0.52 | +1.30 (+0.60, +2.00) | 2 of 3 |' in text
    assert '| MobileNetV2, Repaint w/o task loss | 74.94 | missing | - | missing | 0 of 3 |' in text
    assert '| MobileNetV2, DeepLab-v2 | - | 75.50 | +0.52 (+0.38, +0.69) | +1.30 (+0.60, +2.00) | 2 of 3 |' in text
    rows = table_rows(out)
    assert rows['1', 'MobileNetV2, baseline']['seeds'] == '1 2'
    assert float(rows['1', 'MobileNetV2, baseline']['ours']) == pytest.approx(74.2)
    assert rows['3', 'MixUp']['ours'] == rows['3', 'MixUp']['gain'] == ''
    printed = capsys.readouterr().out
    assert (out / 'tables.md').read_text() in printed
    commands = [line for line in printed.splitlines() if line.startswith('sbatch')]
    assert len(commands) == len(NAMES) + len(DETECTION_NAMES) - 1  # the first phase is part of the second's
    script, recipes = 'timm_repaint/recipes/slurm/row.sbatch', 'timm_repaint/recipes/tables'
    assert f'sbatch --array=3 {script} {recipes}/mobilenetv2-repaint.yaml' in commands
    assert f'sbatch --array=1,2,3 {script} {recipes}/detection/efficientdet-d3-repaint-fh.yaml' in commands


def test_all_is_missing_where_no_folder_is_named_and_tables_can_be_chosen(tmp_path):
    done = run_script('-m timm_repaint.report', 'tables', '--tables', 3, 7, '--seeds', 4, '--output', tmp_path)
    assert {table for table, _ in table_rows(tmp_path)} == {'3', '7'}
    commands = [line for line in done.stdout.splitlines() if line.startswith('sbatch')]
    assert len(commands) == 12 + 6
    assert all('--array=4 ' in line for line in commands)


def test_commands_put_runs_where_they_are_wanted():
    (line,) = missing_commands([], paper_figures()[:1], [1], Path('my runs'))
    assert line.startswith("OUTPUT='my runs' sbatch --array=1 ")


def test_runs_of_detection_fill_their_tables(tmp_path):
    for name, value in {'baseline': 33.0, 'repaint': 34.5, 'repaint-fh': 34.25}.items():
        write_run(tmp_path / 'runs', f'efficientdet-d0-{name}', 1, value)
    write_tables([tmp_path / 'runs'], tmp_path, [1])
    rows = table_rows(tmp_path)
    assert float(rows['2', 'EfficientDet-D0, Repaint']['ours']) == 34.5
    assert float(rows['5', 'EfficientDet-D0, FH']['gain']) == 1.25
    assert float(rows['7', 'AP@0.5, 100 %, Repaint']['ours']) == 44.5
    assert rows['7', 'mAP, 1 %, Repaint']['ours'] == ''


def test_a_smaller_trial_counts_and_is_said_to_be_one(tmp_path):
    write_run(tmp_path, 'resnet50-mixup', 1, 50.0, epochs=3, batch_size=2)
    (run,), (remark,) = read_runs([tmp_path])
    assert run.metrics == {'top1': 50.0, 'top5': 60.0}
    assert 'is a smaller trial of resnet50-mixup: ' in remark
    assert 'epochs 3 (recipe: 200)' in remark and 'batch_size 2 (recipe: 128)' in remark


def test_trials_of_different_sizes_do_not_mix_and_have_no_gain(tmp_path):
    for seed, (value, epochs) in enumerate([(75.0, 90), (60.0, 2)]):
        write_run(tmp_path / 'runs', 'resnet50-baseline', seed, value, epochs=epochs)
    write_run(tmp_path / 'runs', 'resnet50-mixup', 1, 76.0, epochs=90)
    write_run(tmp_path / 'runs', 'resnet50-cutmix', 1, 77.0, epochs=80)
    write_run(tmp_path / 'runs', 'resnet50-repaint', 1, 78.0, epochs=90, repaint_epochs=60)
    write_tables([tmp_path / 'runs'], tmp_path / 'out', [1], tables=[1, 3])
    rows = table_rows(tmp_path / 'out')
    gains = {row['recipe']: row['gain'] for row in rows.values() if row['ours']}
    assert gains == {
        'resnet50-baseline': '', 'resnet50-mixup': '1.0', 'resnet50-cutmix': '', 'resnet50-repaint': '3.0'
    }  # fmt: skip
    text = (tmp_path / 'out' / 'tables.md').read_text()
    assert 'resnet50-baseline-seed1 is left out: ' in text and 'seed0 is a trial of another size' in text


@pytest.mark.parametrize(
    ('recipe', 'changes', 'reason'),
    [
        ('resnet50-baseline', {'experiment': 'mine'}, "no recipe of the tables has its --experiment 'mine'"),
        (
            'resnet50-baseline',
            {'mixup': 0.2},
            'it is of another recipe than resnet50-baseline: mixup 0.2 (recipe: 0.0)',
        ),
        ('resnet50-repaint', {'mask': 'fh'}, 'mask fh (recipe: deeplabv2)'),
        ('resnet50-repaint', {'repaint_freeze': True}, 'repaint_freeze True (recipe: False)'),
        ('resnet50-baseline', {'weight_decay': 0.1}, 'weight_decay 0.1 (recipe: 2e-05)'),
        ('efficientdet-d0-baseline', {'pretrained': True}, 'pretrained True (recipe: False)'),
    ],
)
def test_runs_of_other_recipes_are_left_out_with_the_reason(tmp_path, recipe, changes, reason):
    write_run(tmp_path, recipe, 1, 50.0, **changes)
    runs, (remark,) = read_runs([tmp_path])
    assert not runs
    assert reason in remark and 'is left out' in remark


def test_where_and_how_fast_a_run_computed_makes_no_other_recipe(tmp_path):
    write_run(tmp_path, 'resnet50-repaint', 1, 50.0, device='cpu', amp=True, workers=16, mask_checkpoint='voc.pth')
    assert len(read_runs([tmp_path])[0]) == 1 and not read_runs([tmp_path])[1]


def test_a_fine_tune_phase_of_other_options_is_left_out(tmp_path):
    run = write_run(tmp_path, 'resnet50-repaint', 1, 50.0)
    path = run / 'fine_tune' / 'args.yaml'
    options = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**options, 'repaint': False, 'repaint_prob': 0.5, 'resume': 'last.pth.tar'}))
    assert len(read_runs([tmp_path])[0]) == 1
    path.write_text(yaml.safe_dump({**options, 'repaint': False, 'cutmix': 1.0}))
    runs, (remark,) = read_runs([tmp_path])
    assert not runs
    assert 'of another recipe than resnet50-repaint, fine-tune phase: cutmix 1.0 (recipe: 0.0)' in remark


def test_trials_do_not_mix_with_runs_of_full_size(tmp_path):
    write_run(tmp_path / 'runs', 'resnet50-repaint', 1, 90.0, epochs=2)
    write_run(tmp_path / 'runs', 'resnet50-baseline', 1, 50.0)
    write_tables([tmp_path / 'runs'], tmp_path / 'out', [1], tables=[1])
    row = table_rows(tmp_path / 'out')['1', 'ResNet-50, Repaint']
    assert (row['ours'], row['trial'], row['gain']) == ('90.0', 'True', '')
    text = without_padding((tmp_path / 'out' / 'tables.md').read_text())
    assert '| 90.00* |' in text and '*: smaller trials' in text
    write_run(tmp_path / 'runs', 'resnet50-repaint', 2, 52.0)
    write_tables([tmp_path / 'runs'], tmp_path / 'out', [1, 2], tables=[1])
    row = table_rows(tmp_path / 'out')['1', 'ResNet-50, Repaint']
    assert (row['ours'], row['trial'], row['gain'], row['seeds']) == ('52.0', 'False', '2.0', '2')
    text = (tmp_path / 'out' / 'tables.md').read_text()
    assert 'resnet50-repaint-seed1 is left out: resnet50-repaint has runs of full size' in text


def test_a_second_phase_that_did_not_go_on_from_a_first_is_left_out(tmp_path):
    run = write_run(tmp_path, 'resnet50-shape-resnet', 1, 50.0, resume='auto')  # put back into the queue
    assert len(read_runs([tmp_path])[0]) == 1
    rows = (run / 'summary.csv').read_text().splitlines()
    (run / 'summary.csv').write_text('\n'.join([rows[0], rows[1].replace('199', '0', 1), rows[1]]) + '\n')
    runs, (remark,) = read_runs([tmp_path])
    assert not runs
    assert 'began at epoch 0 instead of going on from a run of resnet50-shape-resnet-stylized' in remark


@pytest.mark.parametrize(
    ('file', 'old', 'new', 'reason'),
    [
        ('summary.csv', '_top5', '_top6', 'summary.csv has no eval_top5'),
        ('summary.csv', ',60.0,0.1', ',6', '1 of 1 rows are not whole'),
        ('summary.csv', '50.0', '', '1 of 1 rows are not whole'),
        ('args.yaml', 'seed:', 'seeed:', 'args.yaml is not that of a run of train.py'),
        ('args.yaml', 'seed:', ']', 'is not YAML'),
    ],
)
def test_damaged_files_are_left_out_with_the_reason(tmp_path, file, old, new, reason):
    path = write_run(tmp_path, 'resnet50-baseline', 1, 50.0) / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    runs, (remark,) = read_runs([tmp_path])
    assert not runs
    assert reason in remark


def test_unfinished_runs_are_left_out_with_the_reason(tmp_path):
    early = write_run(tmp_path / 'early', 'resnet50-baseline', 1, 50.0)
    (early / 'summary.csv').write_text((early / 'summary.csv').read_text().replace('\n199,', '\n7,'))
    first_phase = write_run(tmp_path / 'first', 'resnet50-repaint', 1, 50.0)
    (first_phase / 'fine_tune' / 'args.yaml').unlink()
    runs, remarks = read_runs([tmp_path / 'early', tmp_path / 'first'])
    assert not runs
    assert 'it is not finished' in remarks[0] and 'ends after 8 of 200 epochs' in remarks[0]
    assert 'it is not finished' in remarks[1]


def test_two_runs_with_one_seed_are_refused_with_both_folders(tmp_path):
    folders = [write_run(tmp_path / name, 'resnet50-baseline', 3, 50.0) for name in 'ab']
    with pytest.raises(UsageError) as caught:
        read_runs([tmp_path])
    assert 'both seed 3 of resnet50-baseline; name one' in str(caught.value)
    assert all(str(folder) in str(caught.value) for folder in folders)


def test_the_command_says_where_no_run_is(tmp_path):
    done = run_script('-m timm_repaint.report', 'tables', tmp_path, '--output', tmp_path, fails=True)
    assert done.stderr.strip().endswith('holds no run: there is no args.yaml in it or below')
