"""The generator that comes with the package: it paints at once, and is a start for E and G."""

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from bench.pretrained import write
from tests.tiny import learn, tiny_batch, tiny_classifier, tiny_repaint
from timm_repaint.errors import UsageError
from timm_repaint.masks.felzenszwalb import FelzenszwalbMasks
from timm_repaint.options import build_parser, check_options
from timm_repaint.pictures import to_pm1
from timm_repaint.saved import PRETRAINED_FILE, load_repainter
from timm_repaint.weights import read_checkpoint


def cat() -> tuple[torch.Tensor, torch.Tensor]:
    """scikit-image's photograph of a cat, [1, 3, 96, 128] in [-1, 1], unseen in training, and its segments."""
    image_u8 = np.asarray(Image.fromarray(skimage.data.chelsea()).resize((128, 96)))
    return to_pm1([image_u8]), torch.from_numpy(FelzenszwalbMasks()(image_u8).astype(np.int64))[None]


def test_it_is_small_and_in_half_precision():
    assert PRETRAINED_FILE.stat().st_size < 1_000_000
    weights = {name: tensor for name, tensor in read_checkpoint(str(PRETRAINED_FILE)).items() if 'repainter' in name}
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}


def test_it_paints_a_photograph_anew_at_each_draw_and_keeps_its_edges():
    image_pm1, labels = cat()
    repainter = load_repainter('pretrained').eval()
    assert {parameter.dtype for parameter in repainter.parameters()} == {torch.float32}
    draws = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        one, other = (repainter(image_pm1, labels, draws).image_pm1 for _ in range(2))
    assert 0.1 < (one - image_pm1).abs().mean() < 0.6
    assert (one - other).abs().mean() > 0.1

    def edges(picture):
        grey = picture.mean(dim=1)
        return (grey[:, 1:, 1:] - grey[:, :-1, 1:]).abs() + (grey[:, 1:, 1:] - grey[:, 1:, :-1]).abs()

    for repaint_pm1 in (one, other):
        both = torch.stack([edges(image_pm1).flatten(), edges(repaint_pm1).flatten()])
        assert torch.corrcoef(both)[0, 1] > 0.5


def test_e_and_g_start_from_it_and_learn_on():
    repaint = tiny_repaint(checkpoint='pretrained', width=16)
    ours = load_repainter('pretrained').state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in repaint.repainter.state_dict().items())
    for _ in range(3):
        learn(repaint, tiny_classifier(), *tiny_batch())
    assert any(not torch.equal(tensor, ours[name]) for name, tensor in repaint.repainter.state_dict().items())


def test_semantic_maps_need_another_one_which_is_said():
    with pytest.raises(UsageError, match='pretrained holds another generator: num_labels is None there, 21 here'):
        tiny_repaint(checkpoint='pretrained', width=16, num_labels=21)


def test_the_command_line_takes_it_by_name(capsys):
    parser = build_parser()
    words = ['images', '--repaint', '--repaint-freeze', '--repaint-checkpoint']
    check_options(parser, parser.parse_args([*words, 'pretrained']))
    with pytest.raises(SystemExit):
        check_options(parser, parser.parse_args([*words, 'trained']))
    assert "there is no file trained; ours is 'pretrained'" in capsys.readouterr().err


def test_the_file_is_written_from_a_checkpoint(tmp_path):
    repaint = tiny_repaint()
    torch.save({'repaint': repaint.state_dict()}, tmp_path / 'last.pth.tar')
    write(tmp_path / 'last.pth.tar', tmp_path / 'small.safetensors')
    again = load_repainter(str(tmp_path / 'small.safetensors'))
    assert again.config == repaint.repainter.config
    for name, tensor in repaint.repainter.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, atol=1e-3, rtol=1e-3)
