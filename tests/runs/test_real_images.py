"""Both phases on photographs of three sizes, to the end, from the command line."""

import pytest

from tests.helpers import TINY, column, copy_images, fine_tune_here, mtimes, read_summary, run_script, train_here

# Data set, its options; a batch is eight images.
SETS = {
    'cifar10': ('--img-size', '32'),
    'tiny-imagenet-10': ('--img-size', '64'),
    'caltech101-20': ('--img-size', '128'),
}


@pytest.fixture(params=SETS)
def photographs(request, shared_data, tmp_path):
    """A few photographs of each of five classes, and the options for them."""
    folder = copy_images(shared_data / request.param, tmp_path / 'data', 5, {'train': 5, 'validation': 2})
    return (folder, '--num-classes', '5', *SETS[request.param])


def test_repaint_and_fine_tune_run_to_the_end_on_photographs(photographs, tmp_path):
    run = train_here(tmp_path, *photographs, '--repaint', '--epochs', 2)
    folder = fine_tune_here(run)
    (repainted,), (tuned,) = read_summary(run), read_summary(folder)
    assert (repainted['epoch'], tuned['epoch']) == (0, 1)
    assert all(abs(value) < 1e3 for value in (*repainted.values(), *tuned.values()))
    assert repainted['train_diversity'] > 0.02
    assert (run / 'gallery-0.png').exists()


@pytest.mark.slow
def test_images_are_learned_in_both_phases(shared_data, tmp_path):
    """Twelve epochs with repaints and four without, on two classes: T learns in both phases, and better without."""
    data = copy_images(shared_data / 'tiny-imagenet-10', tmp_path / 'data', 2, {'train': 60, 'validation': 8})
    args = ('--num-classes', 2, '--img-size', 64, '--repaint', '--epochs', 16, '--smoothing', 0, '--lr', '0.02')
    run = train_here(tmp_path, data, *args)
    losses, tuned = column(run, 'train_loss'), column(fine_tune_here(run), 'train_loss')
    assert sum(losses[-4:]) < sum(losses[:4])
    assert sum(tuned) < 0.85 * sum(losses[:4])


def test_the_two_commands_share_nothing_but_the_folder(shared_data, tmp_path):
    """Two processes, as a user calls them, the second with no option at all."""
    data = copy_images(shared_data / 'cifar10', tmp_path / 'data', 4, {'train': 6, 'validation': 2})
    args = (data, *TINY, '-j', 1, '--num-classes', 4, '--repaint', '--epochs', 2, '--output', tmp_path)
    run_script('train.py', *args, '--experiment', 'run')
    before = mtimes(tmp_path / 'run')
    run_script('fine_tune.py', tmp_path / 'run')
    assert before.items() <= mtimes(tmp_path / 'run').items()
    assert column(tmp_path / 'run' / 'fine_tune', 'epoch') == [1]
