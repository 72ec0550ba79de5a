"""Every recipe of the tables, cut down, trains on real photographs, and the tables are built from these runs."""

import csv

import pytest

import train
from tests.helpers import call_main, copy_images, fine_tune_here, read_summary, run_script
from tests.runs.report.test_tables import NAMES
from timm_repaint.report.tables_runs import FIRST_PHASES, RECIPES, load_recipes

SEED = 1
CUT_DOWN = ('--device', 'cpu', '--num-classes', 2, '--img-size', 64, '-b', 2, '-j', 0, '--warmup-epochs', 0)


@pytest.fixture(scope='module')
def photographs(shared_data, tmp_path_factory):
    """Six training and two validation photographs of two classes: six batches of two."""
    folder = tmp_path_factory.mktemp('caltech')
    return copy_images(shared_data / 'caltech101-20', folder, 2, {'train': 6, 'validation': 2})


def train_recipe(name, photographs, deeplab_weights, output):
    """Both phases of a recipe, an epoch each."""
    recipe, args = load_recipes()[name], [*CUT_DOWN, '--epochs', 2, '--mask-checkpoint', deeplab_weights]
    if recipe['repaint']:
        args += ['--repaint-epochs', 1]
    if recipe['stop_epoch']:
        args += ['--stop-epoch', 1]
    if name in FIRST_PHASES:
        args += ['--resume', output / f'{FIRST_PHASES[name]}-seed{SEED}' / 'last.pth.tar']
    place = ['--seed', SEED, '--output', output, '--experiment', f'{name}-seed{SEED}']
    call_main(train.main, photographs, '-c', RECIPES / f'{name}.yaml', *args, *place)
    run = output / f'{name}-seed{SEED}'
    return fine_tune_here(run) if recipe['repaint'] else run


@pytest.mark.slow
def test_each_recipe_trains_both_phases_and_the_tables_are_built_from_the_runs(photographs, deeplab_weights, tmp_path):
    for name in sorted(NAMES, key=lambda name: name in FIRST_PHASES):
        last = read_summary(train_recipe(name, photographs, deeplab_weights, tmp_path / 'runs'))[-1]
        assert last['epoch'] == (0 if name in FIRST_PHASES.values() else 1), name
    options = ('--output', tmp_path / 'out', '--seeds', SEED, '--tables', 1, 3, 4, 6)
    done = run_script('-m timm_repaint.report', 'tables', tmp_path / 'runs', *options)
    with open(tmp_path / 'out' / 'tables.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert all(0 <= float(row['ours']) <= 100 and row['seeds'] == str(SEED) for row in rows)
    assert 'missing' not in done.stdout and 'left out' not in done.stdout
    assert done.stdout.count('is a smaller trial of') == len(NAMES)
