import io

import pytest
import torch
from timm.task import ClassificationTask

from tests.helpers import same_tensors
from tests.tiny import changed, loop_args, tiny_batch, tiny_classifier, tiny_task
from timm_repaint.engine.repaint_loop import repaint_one_epoch
from timm_repaint.errors import UsageError
from timm_repaint.task_state import load_repainter

CPU = torch.device('cpu')


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def trained(**options):
    """A task after three updates, so that both optimizers have a state, and T's optimizer."""
    task = tiny_task(**options)
    optimizer = torch.optim.SGD(task.task.parameters(), lr=0.05, momentum=0.9)
    repaint_one_epoch(0, [tiny_batch(seed=seed) for seed in range(3)], optimizer, loop_args(), task, CPU)
    return task, optimizer


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_checkpoint_state_dict_holds_only_the_classifier():
    task, _ = trained()
    state = task.get_checkpoint_state()
    assert state.keys() == {'state_dict', 'task_state'}
    fresh = tiny_classifier()
    fresh.load_state_dict(state['state_dict'], strict=True)
    assert changed(fresh, state['state_dict']) == set()


def test_task_state_is_tensors_and_plain_values():
    task, _ = trained()
    state = task.get_checkpoint_state()
    assert same_tensors(through_a_file(state), state)
    repaint = state['task_state']['repaint']
    assert repaint.keys() == {'repainter', 'discriminator', 'optimizers'}
    assert repaint['optimizers'].keys() == {'generator', 'discriminator'}


def test_a_task_loaded_from_a_checkpoint_goes_on_bit_by_bit():
    task, optimizer = trained()
    saved = through_a_file({**task.get_checkpoint_state(), 'optimizer': optimizer.state_dict()})
    torch.manual_seed(99)
    other = tiny_task()
    other_optimizer = torch.optim.SGD(other.task.parameters(), lr=0.05, momentum=0.9)
    other.load_checkpoint_state(saved['state_dict'], saved['task_state'])
    other_optimizer.load_state_dict(saved['optimizer'])
    for each, its in ((task, optimizer), (other, other_optimizer)):
        torch.manual_seed(5)
        repaint_one_epoch(1, [tiny_batch(seed=seed) for seed in (7, 8, 9)], its, loop_args(), each, CPU)
    for network in ('task', 'repainter', 'discriminator'):
        assert changed(getattr(task, network), getattr(other, network).state_dict()) == set(), network
    assert same_tensors(task.get_task_state(), other.get_task_state())


def test_a_generator_of_another_width_is_refused_by_name():
    state = tiny_task(width=4).get_checkpoint_state()
    with pytest.raises(UsageError, match=r'generator in the checkpoint is another one: width is 4, here 8$'):
        tiny_task(width=8).load_checkpoint_state(state['state_dict'], state['task_state'])


def test_a_checkpoint_without_a_generator_says_how_to_start_from_its_classifier():
    plain = ClassificationTask(tiny_classifier(), verbose=False).get_checkpoint_state()
    with pytest.raises(UsageError, match=r'of a run without --repaint: .* --initial-checkpoint'):
        tiny_task().load_checkpoint_state(plain['state_dict'], plain.get('task_state'))


def test_the_weight_averages_state_has_no_generator():
    task = tiny_task()
    task.setup_ema(decay=0.5)
    state = task.get_checkpoint_state(ema=True)
    assert state.keys() == {'state_dict_ema'}
    task.load_checkpoint_state(state['state_dict_ema'], None, ema=True)


def test_the_repainter_of_a_file_paints_as_the_one_that_was_saved(tmp_path):
    task, _ = trained()
    path = tmp_path / 'last.pth.tar'
    torch.save(task.get_checkpoint_state(), path)
    image_pm1, labels = torch.rand(1, 3, 32, 32) * 2 - 1, torch.randint(3, (1, 32, 32))
    paints = [
        net.eval()(image_pm1, labels, torch.Generator().manual_seed(1)).image_pm1
        for net in (task.repainter, load_repainter(str(path)))
    ]
    assert torch.equal(*paints)


def test_a_file_without_a_generator_is_named(tmp_path):
    path = tmp_path / 'plain.pth.tar'
    torch.save({'state_dict': tiny_classifier().state_dict()}, path)
    with pytest.raises(
        UsageError, match=r'plain\.pth\.tar has no generator: it is not a checkpoint of train.py --repaint'
    ):
        load_repainter(str(path))
