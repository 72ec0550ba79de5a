"""report shape-bias: the mapping, the decision and the share by hand, on real pictures, and what does not fit."""

import shutil
from argparse import Namespace

import pytest
import torch
from PIL import Image
from timm.data import ImageNetInfo

from tests.helpers import SHAPES, load_checkpoint, run_script, train_here
from timm_repaint.errors import UsageError
from timm_repaint.report.shape_bias import (
    CATEGORIES,
    ShapeBias,
    Stimulus,
    category_matrix,
    count_decisions,
    decide,
    find_stimuli,
    load_classifier,
    report_shape_bias,
)


def test_the_categories_are_imagenet_classes_of_their_kind():
    sizes = {name: len(ids) for name, ids in CATEGORIES.items()}
    assert (len(sizes), sizes['dog'], sizes['bird'], sizes['truck'], sizes['knife']) == (16, 109, 49, 8, 1)
    ids = [wordnet_id for members in CATEGORIES.values() for wordnet_id in members]
    info = ImageNetInfo()
    assert len(set(ids)) == len(ids) and set(ids) <= set(info.label_names())
    description = {name: info.label_name_to_description(members[0]) for name, members in CATEGORIES.items()}
    assert 'airliner' in description['airplane'] and 'bear' in description['bear'] and 'clock' in description['clock']


def test_the_matrix_takes_means_over_the_right_classes():
    matrix = category_matrix()
    torch.testing.assert_close(matrix.sum(dim=0), torch.ones(16))
    names = list(CATEGORIES)
    # ImageNet's airliner is class 404; bears are 294 to 297.
    assert matrix[404].nonzero().tolist() == [[names.index('airplane')]]
    assert matrix[294:298, names.index('bear')].tolist() == [0.25] * 4


def test_the_mean_probability_decides_not_the_highest_nor_the_sum():
    logits = torch.full((2, 1000), -20.0)
    logits[0, 151:269] = 0.0  # all dogs alike: the sum is theirs
    logits[0, 404] = 2.0  # airliner
    logits[1, 294] = 3.0  # one of four bears,
    logits[1, 499] = 2.0  # against the only knife: e^3 / 4 < e^2
    assert decide(logits) == ['airplane', 'knife']


def test_the_bias_is_the_share_of_shape_among_decisions_for_either():
    stimuli = [Stimulus(None, 'cat', 'dog')] * 5
    result = count_decisions(stimuli, ['cat', 'dog', 'dog', 'dog', 'oven'])
    assert result == ShapeBias(1, 3, 1)
    assert result.percent == 25.0


def test_pictures_whose_shape_and_texture_agree_are_left_out(shared_data):
    stimuli = find_stimuli(shared_data / 'cue-conflict')
    assert 0 < len(stimuli) < 64
    assert all(s.shape != s.texture and s.shape == s.path.parent.name for s in stimuli)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    run = train_here(tmp_path_factory.mktemp('run'), *SHAPES, '--num-classes', 1000, '--epochs', 1)
    return run / 'last.pth.tar'


def test_a_checkpoint_is_measured_on_real_pictures(checkpoint, shared_data, tmp_path):
    for name in ('cat', 'oven'):
        shutil.copytree(shared_data / 'cue-conflict' / name, tmp_path / name)
    result = report_shape_bias(checkpoint, tmp_path, torch.device('cpu'))
    assert result.shape + result.texture + result.other == len(find_stimuli(tmp_path))
    done = run_script('-m timm_repaint.report', 'shape-bias', checkpoint, tmp_path, '--device', 'cpu')
    assert done.stdout.startswith('shape bias ') and f'{result.shape} decisions for the shape' in done.stdout


def test_the_checkpoints_weights_are_the_models(checkpoint):
    model, data_config = load_classifier(checkpoint)
    assert data_config['input_size'] == (3, 32, 32) and not model.training
    saved = torch.load(checkpoint, map_location='cpu', weights_only=False)['state_dict']
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


def test_the_network_is_the_one_that_was_trained(tmp_path):
    run = train_here(tmp_path, *SHAPES, '--num-classes', 1000, '--epochs', 1, '--gp', 'max')
    assert load_classifier(run / 'last.pth.tar')[0].global_pool.pool_type == 'max'


def test_the_average_is_measured_where_validation_measured_it(tmp_path):
    average = ('--model-ema', '--model-ema-decay', 0.5)
    run = train_here(tmp_path, *SHAPES, '--num-classes', 1000, '--epochs', 1, *average)
    saved = load_checkpoint(run / 'last.pth.tar')
    state = load_classifier(run / 'last.pth.tar')[0].state_dict()
    assert all(torch.equal(value, saved['state_dict_ema'][name]) for name, value in state.items())
    assert any(not torch.equal(value, saved['state_dict'][name]) for name, value in state.items())


def test_what_does_not_fit_is_told(tmp_path, checkpoint):
    with pytest.raises(UsageError, match='holds no cue-conflict pictures'):
        find_stimuli(tmp_path)
    Image.new('RGB', (8, 8)).save(tmp_path / 'cat1-spoon2.png')
    with pytest.raises(UsageError, match=r'cat1-spoon2\.png is not named'):
        find_stimuli(tmp_path)
    with pytest.raises(UsageError, match='is not a checkpoint of train'):
        load_classifier(tmp_path / 'none.pth.tar')
    torch.save({'weights': torch.ones(2)}, tmp_path / 'other.pth')
    with pytest.raises(UsageError, match='is not a checkpoint of train'):
        load_classifier(tmp_path / 'other.pth')
    saved = load_checkpoint(checkpoint)
    damaged = {
        'other': ({'args': vars(saved['args'])}, "is not a checkpoint of train.py: it lacks a run's options"),
        'weights': ({'state_dict': {'fc.weight': torch.ones(2)}}, 'is not a test_resnet: missing '),
        'empty': ({'state_dict': {}}, 'holds no tensors by name'),
        'model': (
            {'args': Namespace(**{**vars(saved['args']), 'model': 'resnet0'})},
            'cannot make --model resnet0: Unknown model',
        ),
        'kwargs': ({'args': Namespace(**{**vars(saved['args']), 'model_kwargs': 1})}, 'holds no network of timm: '),
    }
    for name, (changes, message) in damaged.items():
        torch.save({**saved, **changes}, tmp_path / f'{name}.pth.tar')
        with pytest.raises(UsageError, match=message):
            load_classifier(tmp_path / f'{name}.pth.tar')
    (tmp_path / 'stimuli').mkdir()
    (tmp_path / 'stimuli' / 'cat1-dog2.png').write_bytes(b'no picture')
    with pytest.raises(UsageError, match=r'cannot read .*cat1-dog2\.png: no image that Pillow can read; replace or'):
        report_shape_bias(checkpoint, tmp_path / 'stimuli', torch.device('cpu'))
    few = train_here(tmp_path, *SHAPES, '--epochs', 1, '--num-classes', 10)
    with pytest.raises(UsageError, match='has 10 classes, but shape bias needs the 1000'):
        load_classifier(few / 'last.pth.tar')
