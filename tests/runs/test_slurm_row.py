"""A row of the paper's tables on SLURM: its phases, program, masks and place; with stand-ins for SLURM's programs."""

import re
import sys

import pytest
import yaml

from tests.helpers import call_main, column, load_checkpoint
from tests.runs.test_slurm import TINY, Cluster, value_of
from timm_repaint.commands import show_options
from timm_repaint.report.tables import ROW_SCRIPT, command
from timm_repaint.report.tables_runs import DETECTION, FIRST_PHASES, RECIPES, load_recipes, recipe_path

ROWS = sorted(set(load_recipes()) - set(FIRST_PHASES.values()))
DETECTORS = {name for name in ROWS if recipe_path(name).parent == DETECTION}


def kind_of(name: str) -> tuple[bool, bool, str, bool]:
    """All that the script asks of a recipe."""
    options = load_recipes()[name]
    return name in DETECTORS, options['repaint'], options['mask'], name in FIRST_PHASES


ONE_OF_EACH_KIND = sorted({kind_of(name): name for name in ROWS}.values())
ROW = ROW_SCRIPT.rpartition('/')[2]


@pytest.fixture
def cluster(tmp_path) -> Cluster:
    return Cluster(tmp_path / 'the cluster')


@pytest.mark.parametrize('recipe', ['tables/none', pytest.param('none.yaml', marks=pytest.mark.slow)])
def test_a_recipe_that_is_not_there_ends_the_job_at_once(cluster, recipe):
    row = cluster.sbatch(ROW, recipe, PYTHON='stand-in-python', SEED=3)[-1]
    (line,) = row['output'].strip().splitlines()
    assert row['code'] in (1, 2) and recipe in line and re.search('no (such )?file', line, re.I)
    assert not cluster.calls()


@pytest.fixture
def answer(capsys):
    """What `timm-repaint options` says of a recipe, without a process of its own: seconds a row."""

    def of(recipe):
        call_main(show_options.main, '-c', recipe, '--get', 'repaint', 'mask', 'task')
        return capsys.readouterr().out

    return of


def test_weights_come_from_files_where_nodes_have_no_network(cluster):
    recipe = next(name for name in ROWS if name in DETECTORS and not load_recipes()[name]['repaint'])
    (call,) = calls_of(cluster, recipe, BACKBONE='/back bone.pth')
    assert value_of(call, '--pretrained-backbone-path') == '/back bone.pth'


def calls_of(cluster, recipe, *words, **settings):
    """What this row of a recipe and those before it called, one list of words a phase."""
    settings = {'DEEPLAB': '/deep lab.pth', 'STYLIZED': '/stylized', 'CODES': 0, 'OUTPUT': '/my runs', **settings}
    row = cluster.sbatch(ROW, recipe_path(recipe), *words, PYTHON='stand-in-python', SEED=3, **settings)[-1]
    assert row['code'] == 0, row['output']
    return [words for words, _ in cluster.calls()]


@pytest.mark.parametrize('recipe', ONE_OF_EACH_KIND)
def test_each_kind_of_recipe_runs_its_phases(cluster, recipe, answer):
    options, detection = load_recipes()[recipe], recipe in DETECTORS
    calls = calls_of(cluster, recipe, '--amp', ANSWER=answer(recipe_path(recipe)))
    last = calls[0] if options['repaint'] else calls[-1]
    start = ['-m', 'timm_repaint.detection.train', '/data/coco']
    if not detection:
        start = ['train.py', '/data/imagenet']
    assert last[: len(start)] == start
    assert value_of(last, '-c') == str(recipe_path(recipe))
    assert (value_of(last, '--seed'), value_of(last, '--output')) == ('3', '/my runs')
    assert value_of(last, '--experiment') == f'{recipe}-seed3'
    assert last[-1] == '--amp'
    assert ('--mask-checkpoint' in last) == (options['repaint'] and options['mask'] == 'deeplabv2')
    program = ['-m', 'timm_repaint.detection.fine_tune'] if detection else ['fine_tune.py']
    fine_tune = [[*program, f'/my runs/{recipe}-seed3', '--resume', 'auto']] if options['repaint'] else []
    first_phase = [calls[0]] if recipe in FIRST_PHASES else []
    assert calls == [*first_phase, last, *fine_tune]


def test_the_second_phase_of_shape_resnet_goes_on_from_the_first_and_later_from_itself(cluster, answer, tmp_path):
    settings = {'OUTPUT': tmp_path, 'ANSWER': answer(recipe_path('resnet50-shape-resnet'))}
    first, second = calls_of(cluster, 'resnet50-shape-resnet', **settings)
    assert first[:2] == ['train.py', '/stylized'] and second[:2] == ['train.py', '/data/imagenet']
    assert value_of(first, '--experiment') == 'resnet50-shape-resnet-stylized-seed3'
    assert value_of(first, '--resume') == 'auto'
    assert value_of(second, '--resume') == f'{tmp_path}/resnet50-shape-resnet-stylized-seed3/last.pth.tar'
    checkpoint = tmp_path / 'resnet50-shape-resnet-seed3' / 'last.pth.tar'
    checkpoint.parent.mkdir()
    checkpoint.touch()
    assert value_of(calls_of(cluster, 'resnet50-shape-resnet', **settings)[-1], '--resume') == 'auto'


@pytest.mark.slow
def test_masks_that_are_there_are_used_and_those_of_coco_are_its_own(cluster, tmp_path):
    for folder in ('photos/fh', 'coco/deeplabv2'):
        (tmp_path / folder).mkdir(parents=True)
    settings = {'MASKS': tmp_path / 'photos', 'COCO_MASKS': tmp_path / 'coco'}
    options = []
    for recipe in ('resnet50-repaint-fh', 'resnet50-repaint', 'efficientdet-d0-repaint', 'efficientdet-d0-repaint-fh'):
        training = calls_of(cluster, recipe, **settings)[-2]
        options.append(training[training.index('--resume') + 2 :])
    assert options == [
        ['--mask-dir', f'{tmp_path}/photos/fh'],
        ['--mask-checkpoint', '/deep lab.pth'],
        ['--mask-dir', f'{tmp_path}/coco/deeplabv2'],
        [],
    ]


@pytest.mark.parametrize(
    ('recipe', 'settings', 'message'),
    [
        ('resnet50-repaint', {'DEEPLAB': ''}, 'DEEPLAB: the weights of DeepLab-v2, or masks in MASKS/deeplabv2'),
        ('resnet50-shape-resnet', {'STYLIZED': ''}, 'STYLIZED: the folder of the stylized images'),
    ],
)
def test_what_a_row_lacks_is_told_before_it_starts(cluster, recipe, settings, message, answer):
    settings = {'ANSWER': answer(recipe_path(recipe)), 'CODES': 0, **settings}
    (row,) = cluster.sbatch(ROW, recipe_path(recipe), PYTHON='stand-in-python', **settings)
    assert row['code'] != 0 and message in row['output']
    assert cluster.calls() == []


def test_a_recipe_that_stands_on_no_file_ends_the_row_before_it_starts(cluster, tmp_path):
    (tmp_path / 'mine.yaml').write_text('base: lost.yaml\n')
    (row,) = cluster.sbatch(ROW, tmp_path / 'mine.yaml', PYTHON='stand-in-python', CODES=0)
    assert row['code'] != 0 and f'cannot read {tmp_path}/lost.yaml (base of ' in row['output']
    assert cluster.calls() == []


def test_a_row_without_a_recipe_says_so(cluster):
    (row,) = cluster.sbatch(ROW, PYTHON='stand-in-python', CODES=0)
    assert row['code'] != 0 and 'the first argument is a recipe' in row['output']


def test_nothing_follows_a_phase_that_failed_and_a_stopped_one_goes_back_into_the_queue(cluster, answer):
    path = recipe_path('resnet50-repaint-fh')
    settings = {'PYTHON': 'stand-in-python', 'ANSWER': answer(path)}
    (failed,) = cluster.sbatch(ROW, path, **settings, CODES='1 0')
    assert (failed['code'], failed['starts'], len(cluster.calls())) == (1, 1, 1)
    stopped = cluster.sbatch(ROW, path, **settings, CODES='0 0 75 0')[-1]  # in the fine-tune phase
    assert (stopped['code'], stopped['starts'], cluster.requeued()) == (0, 2, [str(stopped['job'])])
    assert [words[0] for words, _ in cluster.calls()[1:]] == ['train.py', 'fine_tune.py'] * 2


def test_the_printed_command_trains_each_seed_of_an_array(cluster):
    words = command('resnet50-mixup', [2, 3], RECIPES).split()
    assert words[:2] == [f'OUTPUT={RECIPES}', 'sbatch'] and words[2] == '--array=2,3'
    cluster.call('sbatch', '--array=2-3', *words[3:], PYTHON='stand-in-python', CODES=0)
    assert [value_of(words, '--experiment') for words, _ in cluster.calls()] == [
        'resnet50-mixup-seed2',
        'resnet50-mixup-seed3',
    ]


@pytest.mark.slow
def test_a_row_that_is_stopped_in_its_second_phase_goes_on_there_and_is_complete(cluster, tmp_path):
    recipe = tmp_path / 'small.yaml'
    options = {'dataset': 'shapes', 'train_num_samples': 24, 'val_num_samples': 8, 'epochs': 12, 'repaint_epochs': 2}
    recipe.write_text(yaml.safe_dump({**options, 'repaint': True, 'mask': 'fh', 'repaint_width': 8}))
    run = tmp_path / 'runs' / 'small-seed2'
    python = sys.executable  # also where its environment is not activated
    cluster.add_program(
        'preempted-once',
        f"""#!/usr/bin/env bash
    [[ $1 == fine_tune.py && ! -e '{run}/fine_tune' ]] || exec '{python}' "$@"
    '{python}' "$@" &
    until [[ -e '{run}/fine_tune/last.pth.tar' ]]; do sleep 0.02; done
    kill -USR1 $!
    wait $!
    """,
    )
    # The data set is built in, so the folder of images, which a row always names, is not read.
    settings = {'PYTHON': 'preempted-once', 'DATA': tmp_path, 'OUTPUT': tmp_path / 'runs', 'SEED': 2}
    (row,) = cluster.sbatch(ROW, recipe, *TINY.split(), **settings)
    assert (row['code'], row['starts']) == (0, 2), row['output']
    assert f'{run} is finished: 2 of 2 epochs done' in row['output']
    assert column(run, 'epoch') == [0, 1] and column(run / 'fine_tune', 'epoch') == list(range(2, 12))
    assert load_checkpoint(run / 'fine_tune' / 'last.pth.tar')['args'].seed == 2


@pytest.mark.parametrize('script', ['train.sbatch', 'train_nodes.sbatch', 'seeds.sbatch'])
def test_a_recipe_says_itself_whether_it_repaints_and_otherwise_the_scripts_do(cluster, script):
    settings = {'PYTHON': 'stand-in-python', 'CODES': 0}
    cluster.sbatch(script, RECIPE=recipe_path('resnet50-baseline'), **settings)
    assert not any('--repaint' in words for words, _ in cluster.calls())
    done = len(cluster.calls())
    cluster.sbatch(script, **settings)
    assert all(words[-1] == '--repaint' for words, _ in cluster.calls()[done:])
    done = len(cluster.calls())
    cluster.sbatch(script, RECIPE=recipe_path('resnet50-baseline'), ARGS='--amp', **settings)
    assert all(words[-1] == '--amp' for words, _ in cluster.calls()[done:])
