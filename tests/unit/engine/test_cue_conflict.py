import json
from types import SimpleNamespace

import pytest
import torch
from timm.task import ClassificationTask
from torch import nn

from timm_repaint.data.shapes import ShapesDataset
from timm_repaint.engine.cue_conflict import report_cue_conflict, shape_and_texture_accuracy

MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
COUNT = 30


def test_both_accuracies_are_percentages_of_all_images():
    predictions, shapes, textures = (torch.tensor(x) for x in ([0, 1, 2, 3, 4], [0, 0, 0, 0, 0], [1, 1, 2, 3, 0]))
    assert shape_and_texture_accuracy(predictions, shapes, textures) == pytest.approx({'shape': 20.0, 'texture': 60.0})


class Memory(nn.Module):
    """A classifier that knows each image of the split by its pixels, and says its shape or its texture."""

    def __init__(self, answers_of):
        super().__init__()
        dataset = ShapesDataset('cue-conflict', COUNT, image_size=32)
        self.answers = [answers_of(dataset, index) for index in range(COUNT)]
        pixels = [torch.frombuffer(bytearray(dataset[index][0].tobytes()), dtype=torch.uint8) for index in range(COUNT)]
        self.known = torch.stack(pixels).view(COUNT, 32, 32, 3).permute(0, 3, 1, 2).float() / 127.5 - 1

    def forward(self, image_norm):
        assert not self.training
        index = torch.cdist(image_norm.flatten(1), self.known.flatten(1)).argmin(dim=1)
        return nn.functional.one_hot(torch.tensor(self.answers)[index], 10).float()


def make_run(model, folder):
    sizes = {'val_num_samples': COUNT, 'validation_batch_size': None, 'batch_size': 8, 'workers': 0}
    args = SimpleNamespace(**sizes, model_ema=False, model_ema_force_cpu=False)
    config = {'input_size': (3, 32, 32), 'interpolation': 'bicubic', 'mean': MEAN, 'std': STD, 'crop_pct': 1.0}
    return SimpleNamespace(
        args=args,
        data_config=config,
        device=torch.device('cpu'),
        precision=SimpleNamespace(model_dtype=None, autocast=torch.no_grad),
        task=ClassificationTask(model, verbose=False),
        output=SimpleNamespace(folder=folder),
        plan=SimpleNamespace(stop_epoch=7),
    )


@pytest.mark.parametrize(
    ('answers_of', 'wanted'),
    [(ShapesDataset.target, (100.0, 0.0)), (ShapesDataset.texture_label, (0.0, 100.0))],
    ids=['shape', 'texture'],
)
def test_a_classifier_that_follows_one_cue_gets_all_of_it_and_none_of_the_other(tmp_path, answers_of, wanted):
    report_cue_conflict(make_run(Memory(answers_of), tmp_path))
    report = json.loads((tmp_path / 'cue_conflict.json').read_text())
    assert (report['shape'], report['texture']) == pytest.approx(wanted)
    assert (report['epochs'], report['images']) == (7, COUNT)


def test_other_processes_write_no_file(tmp_path):
    report_cue_conflict(make_run(Memory(ShapesDataset.target), None))
    assert list(tmp_path.iterdir()) == []
