"""The state of a Repaint, what of it lies in a checkpoint, and E and G out of any file that holds it."""

import copy
import io
import logging

import pytest
import safetensors.torch
import torch
from torch import nn

from tests.helpers import same_tensors
from tests.tiny import (
    adam_steps,
    changed,
    learn,
    overflow_once,
    snapshot,
    tiny_batch,
    tiny_classifier,
    tiny_repaint,
)
from timm_repaint.errors import UsageError
from timm_repaint.saved import load_repainter

pytestmark = pytest.mark.usefixtures('seeded')

CPU = torch.device('cpu')


def trained(size=4, **options):
    """A Repaint after four updates, of which the first was skipped and the third was E and G's too; and its T."""
    repaint, model = tiny_repaint(**options), tiny_classifier()
    overflow_once(repaint)
    for seed in range(4):
        learn(repaint, model, *tiny_batch(size, seed))
    return repaint, model


def go_on(repaint, model, dtype=torch.float32):
    """Three more updates, with the same random numbers each time; the weights and all else there is."""
    for seed in range(3):
        torch.manual_seed(50 + seed)
        batch, target = tiny_batch(seed=7 + seed)
        learn(repaint, model, batch.to(dtype), target)
    return repaint.state_dict()


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# Its form -------------------------------------------------------------------------------------------------------------


def test_the_state_is_a_flat_dict_of_tensors_that_goes_through_torchs_and_safetensors_files(tmp_path):
    repaint, _ = trained()
    state = dict(repaint.state_dict())
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    assert {name.split('.')[0] for name in state} == {'repainter', 'discriminator', '_extra_state'}
    assert same_tensors(dict(through_a_file(state)), state)
    safetensors.torch.save_file(state, tmp_path / 'repaint.safetensors')
    assert same_tensors(safetensors.torch.load_file(tmp_path / 'repaint.safetensors'), state)
    other = tiny_repaint()
    other.load_state_dict(safetensors.torch.load_file(tmp_path / 'repaint.safetensors'))
    assert same_tensors(
        load_repainter(str(tmp_path / 'repaint.safetensors')).state_dict(), repaint.repainter.state_dict()
    )
    assert same_tensors(dict(other.state_dict()), state) and other.updates == 4


@pytest.mark.parametrize('options', [{}, {'gan_loss': 'original', 'schedule': (1, 2)}, {'latent': 'global'}], ids=str)
def test_the_state_has_the_same_form_at_any_time(options):
    repaint, model = tiny_repaint(**options), tiny_classifier()
    before = {name: (value.shape, value.dtype) for name, value in repaint.state_dict().items()}
    for seed in range(4):
        learn(repaint, model, *tiny_batch(seed=seed))
        assert {name: (value.shape, value.dtype) for name, value in repaint.state_dict().items()} == before
    with torch.autocast('cpu', dtype=torch.float16):  # gradient scalers come
        learn(repaint, model, *tiny_batch(2))
    assert repaint.optimizers['discriminator'].scaler is not None
    repaint.stop()
    assert {name: (value.shape, value.dtype) for name, value in repaint.state_dict().items()} == before


def test_a_state_that_was_taken_does_not_change_any_more_where_it_would_be_saved_later():
    repaint, model = trained()
    state = copy.deepcopy(repaint.state_dict())
    extra = repaint.state_dict()['_extra_state']
    go_on(repaint, model)
    assert torch.equal(extra, state['_extra_state']) and not torch.equal(extra, repaint.state_dict()['_extra_state'])


# Going on -------------------------------------------------------------------------------------------------------------


def test_a_loaded_state_goes_on_bit_by_bit():
    repaint, model = trained()
    saved = through_a_file(repaint.state_dict())
    torch.manual_seed(99)
    other, other_model = tiny_repaint(), copy.deepcopy(model)
    other.load_state_dict(saved)
    assert (other.updates, other.skipped, adam_steps(other)) == (4, repaint.skipped, (3, 1))
    assert repaint.skipped == {'generator': 0, 'discriminator': 1, 'task': 0}
    assert same_tensors(dict(go_on(repaint, model)), dict(go_on(other, other_model)))
    assert changed(model, snapshot(other_model)) == set() and adam_steps(other) == (6, 2)


def test_a_loaded_state_goes_on_with_its_gradient_scalers_bit_by_bit():
    def learn_in_float16(repaint, model):
        torch.manual_seed(5)
        with torch.autocast('cpu', dtype=torch.float16):
            learn(repaint, model, *tiny_batch(2))
        return repaint.state_dict()

    repaint, model = trained(size=2)
    repaint.updates = 2  # everybody's
    overflow_once(repaint)
    learn_in_float16(repaint, model)
    other, other_model = tiny_repaint(), copy.deepcopy(model)
    other.load_state_dict(through_a_file(repaint.state_dict()))
    for name, optimizer in repaint.optimizers.items():
        assert optimizer.scaler.get_scale() == 2**15
        assert other.optimizers[name].scaler.state_dict() == optimizer.scaler.state_dict()
    assert same_tensors(dict(learn_in_float16(repaint, model)), dict(learn_in_float16(other, other_model)))


def test_a_stopped_one_stays_stopped():
    repaint, _ = trained()
    repaint.stop()
    other = tiny_repaint()
    other.load_state_dict(repaint.state_dict())
    batch, _ = tiny_batch()
    assert other.stopped and torch.equal(other(batch), batch[:, :3])
    repaint.stopped = False
    other.load_state_dict(repaint.state_dict())
    assert not other.stopped


@pytest.mark.parametrize('first', ['loading', 'moving'])
@pytest.mark.parametrize(
    'move', [lambda module: module.to(CPU), lambda module: module.double(), lambda module: module.half()]
)
def test_a_state_may_be_loaded_before_or_after_a_move(move, first):
    repaint, model = trained()
    state = through_a_file(repaint.state_dict())
    other = tiny_repaint()
    for act in ('loading', 'moving') if first == 'loading' else ('moving', 'loading'):
        if act == 'moving':
            move(other)
        else:
            other.load_state_dict(state)
    move(repaint)
    dtype = next(repaint.parameters()).dtype
    assert dtype == next(other.parameters()).dtype
    move(model)
    model.to(dtype)
    assert same_tensors(dict(other.state_dict()), dict(repaint.state_dict()))
    ours, theirs = go_on(repaint, copy.deepcopy(model), dtype=dtype), go_on(other, model, dtype=dtype)
    assert same_tensors(dict(ours), dict(theirs))


def test_a_state_of_double_precision_loads_into_single_precision():
    repaint, _ = trained()
    wanted = {name: value.clone() for name, value in repaint.state_dict().items()}
    other = tiny_repaint()
    other.load_state_dict(repaint.double().state_dict())
    assert same_tensors(dict(other.state_dict()), wanted)


def test_as_part_of_a_module_its_state_lies_in_the_modules():
    repaint, model = trained()
    both = nn.Sequential(repaint, model)
    state = both.state_dict()
    other = nn.Sequential(tiny_repaint(), tiny_classifier())
    other.load_state_dict(through_a_file(state))
    assert same_tensors(dict(other.state_dict()), dict(state)) and other[0].updates == 4


def test_a_copy_goes_on_bit_by_bit_and_by_itself():
    repaint, model = trained()
    repaint(*tiny_batch())  # a batch that the copy has no step for
    twin, twin_model = copy.deepcopy(repaint), copy.deepcopy(model)
    repaint.drop()
    ours = {name: value.clone() for name, value in go_on(repaint, model).items()}
    theirs = {name: value.clone() for name, value in go_on(twin, twin_model).items()}
    assert same_tensors(ours, theirs)
    go_on(twin, twin_model)
    assert same_tensors(dict(repaint.state_dict()), ours) and adam_steps(twin) == (9, 3)


# Other settings -------------------------------------------------------------------------------------------------------


def test_a_generator_of_another_width_is_refused_by_name_before_anything_is_loaded():
    state = trained(width=4)[0].state_dict()
    other = tiny_repaint(width=8)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(UsageError, match=r'generator in the checkpoint is another one: width is 4, here 8; use its'):
        other.load_state_dict(state)
    assert same_tensors(dict(other.state_dict()), before)


def test_all_differences_of_the_networks_are_named():
    state = tiny_repaint(latent='global', detail='none', temperature=0.5).state_dict()
    with pytest.raises(UsageError) as refused:
        tiny_repaint().load_state_dict(state)
    for difference in (
        'latent is global, here segment',
        'latent_dim is 64, here 8',
        'detail is none, here keep',
        'temperature is 0.5, here 1.0',
    ):
        assert difference in str(refused.value)
    assert 'width' not in str(refused.value)


def test_another_setting_is_told_and_the_new_one_is_used(caplog):
    repaint, _ = trained(prob=0.5, d_lr=2e-3, schedule=(2, 1))
    other = tiny_repaint(prob=1.0, d_lr=1e-4, schedule=(1, 1))
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger='timm_repaint'):
        other.load_state_dict(repaint.state_dict())
    assert sorted(caplog.messages) == [
        'The state was saved with d_lr 0.002; it goes on with 0.0001.',
        'The state was saved with prob 0.5; it goes on with 1.0.',
        'The state was saved with schedule [2, 1]; it goes on with [1, 1].',
    ]
    assert other.optimizers['discriminator'].adam.param_groups[0]['lr'] == 1e-4
    learn(other, tiny_classifier(), *tiny_batch())
    assert other.split.tolist() == [True] * 4


def test_where_the_masks_come_from_and_the_file_to_start_from_are_no_settings(caplog, tmp_path):
    repaint, _ = trained()
    torch.save(repaint.state_dict(), tmp_path / 'start.pth')
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger='timm_repaint'):
        tiny_repaint(masks='fh', checkpoint=str(tmp_path / 'start.pth')).load_state_dict(repaint.state_dict())
    assert caplog.messages == []


def test_a_frozen_one_loads_from_the_state_of_a_learning_one(tmp_path):
    repaint, _ = trained()
    state = repaint.state_dict()
    keys = set(state)
    torch.save(tiny_repaint().state_dict(), tmp_path / 'start.pth')
    other = tiny_repaint(checkpoint=str(tmp_path / 'start.pth'), freeze=True)
    assert changed(other.repainter, snapshot(repaint.repainter))
    other.load_state_dict(state)
    assert changed(other.repainter, snapshot(repaint.repainter)) == set()
    assert set(state) == keys  # the caller's is as it was
    assert {name.split('.')[0] for name in other.state_dict()} == {'repainter', '_extra_state'}
    again = tiny_repaint(checkpoint=str(tmp_path / 'start.pth'), freeze=True)
    again.load_state_dict(through_a_file(other.state_dict()))
    assert same_tensors(dict(again.state_dict()), dict(other.state_dict()))


@pytest.mark.parametrize('generator', ['mean', 'shift'])
def test_a_painter_without_a_network_has_a_state_too(generator):
    repaint = tiny_repaint(generator=generator)
    other = tiny_repaint(generator=generator)
    repaint.stop()
    other.load_state_dict(through_a_file(repaint.state_dict()))
    assert other.stopped and set(repaint.state_dict()) == {'_extra_state'}
    with pytest.raises(UsageError, match=f'generator is {generator}, here light'):
        tiny_repaint().load_state_dict(repaint.state_dict())


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda extra: extra[:-4], 'is cut off; load another checkpoint'),
        (lambda extra: extra[:20], 'is not the state of a Repaint'),
        (lambda extra: torch.zeros(64, dtype=torch.uint8), 'is not the state of a Repaint'),
        (lambda extra: torch.tensor(1.0), 'is not the state of a Repaint'),
        (lambda extra: {'width': 4}, 'is not the state of a Repaint'),
    ],
)
def test_a_damaged_state_is_named(damage, message):
    repaint, _ = trained()
    state = repaint.state_dict()
    with pytest.raises(UsageError, match=message):
        tiny_repaint().load_state_dict({**state, '_extra_state': damage(state['_extra_state'])})


# In a checkpoint ------------------------------------------------------------------------------------------------------


# E and G from a file --------------------------------------------------------------------------------------------------


def test_a_scale_without_end_does_not_end_the_saving():
    repaint, _ = trained()
    repaint.optimizers['generator'].set_scaler(2.0**60, 3)
    other = tiny_repaint()
    other.load_state_dict(through_a_file(repaint.state_dict()))
    assert other.optimizers['generator'].scaler_numbers == (2.0**38, 3)
