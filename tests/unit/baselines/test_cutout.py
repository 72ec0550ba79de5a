"""--cutout: the square, its places, and its turn after everything else."""

from contextlib import nullcontext

import numpy as np
import torch
from PIL import Image
from timm.models import create_model

from tests.helpers import REPAINT, SHAPES, column, train_here
from timm_repaint.baselines.cutout import CutOut
from timm_repaint.engine.loaders import build_loaders
from timm_repaint.engine.repaint_phase import build_erasing
from timm_repaint.engine.setup import Network, Precision
from timm_repaint.options import build_parser


def holes(image_norm):
    """Blanked pixels of a batch that had none: [B, H, W] bool."""
    blank = image_norm == 0
    assert (blank.all(dim=1) == blank.any(dim=1)).all()  # the same in all channels
    return blank[:, 0]


def test_a_square_that_the_border_may_cut_is_blanked():
    torch.manual_seed(0)
    for hole in holes(CutOut(4)(torch.ones(200, 3, 12, 9))):
        rows, columns = hole.any(dim=1), hole.any(dim=0)
        assert (hole == rows[:, None] & columns[None, :]).all()
        for used in (rows, columns):
            places = used.nonzero()[:, 0]
            assert len(places) == 1 + places[-1] - places[0]  # in one piece
            at_border = used[0] or used[-1]
            assert 2 <= len(places) <= 4 if at_border else len(places) == 4


def test_the_centre_is_any_pixel_with_the_same_chance():
    torch.manual_seed(0)
    centres = holes(CutOut(1)(torch.ones(8000, 1, 4, 5))).float()
    assert (centres.sum(dim=(1, 2)) == 1).all()
    assert ((centres.mean(dim=0) - 1 / 20).abs() < 0.012).all()  # five standard errors


def test_a_square_larger_than_the_image_blanks_at_least_a_quarter():
    assert (holes(CutOut(8)(torch.ones(50, 3, 8, 8))).float().mean(dim=(1, 2)) >= 0.25).all()


def test_it_comes_after_random_erasing_on_top_of_the_repaint():
    args = build_parser().parse_args(['--cutout', '64', '--reprob', '1', '--repaint'])
    torch.manual_seed(0)
    images = build_erasing(args, torch.device('cpu'))(torch.ones(20, 3, 32, 32))
    assert ((images == 0).all(dim=1).float().mean(dim=(1, 2)) >= 0.95).all()  # nothing erased lies on top
    off = build_parser().parse_args(['--repaint'])
    assert build_erasing(off, torch.device('cpu')) is None


def test_the_loader_cuts_out_without_repaint_and_leaves_it_to_the_task_with_it():
    model = create_model('test_resnet', num_classes=10)
    data_config = {'input_size': (3, 32, 32), 'mean': (0.501,) * 3, 'std': (0.2,) * 3, 'interpolation': 'bilinear'}
    shares = []
    for options in ((), ('--cutout', '32'), ('--cutout', '32', '--repaint')):
        args = build_parser().parse_args([*SHAPES, '-b', '8', '-j', '0', '--val-split', '', *options])
        args.distributed, args.rank, args.num_classes = False, 0, 10
        precision = Precision(None, nullcontext, None)
        network = Network(args, torch.device('cpu'), precision, model, {**data_config, 'crop_pct': 1.0})
        loaders = build_loaders(network, fresh_workers=False)
        (images, _) = next(iter(loaders.train))
        shares.append((images[:, :3] == 0).float().mean(dim=(1, 2, 3)))  # no 8-bit value is the mean
    assert shares[0].max() == shares[2].max() == 0
    assert shares[1].min() >= 0.25


def test_repaints_are_cut_out_in_a_run(tmp_path):
    blank = train_here(tmp_path, *REPAINT, '--epochs', 2, '--save-images', '--cutout', 64, name='blank')  # always all
    whole = train_here(tmp_path, *REPAINT, '--epochs', 2, '--save-images', name='whole')
    deviations = []
    for run in (blank, whole):
        with Image.open(run / 'train-batch-0.jpg') as image:
            deviations.append(np.asarray(image).std())
    assert deviations[0] == 0 < deviations[1]


def test_without_it_a_run_is_the_same_and_with_it_another(tmp_path):
    runs = [train_here(tmp_path, *SHAPES, '--epochs', 1, *args, name=str(len(args))) for args in ((), ('--cutout', 16))]
    plain = train_here(tmp_path, *SHAPES, '--epochs', 1, '--cutout', 0, name='zero')
    assert column(plain, 'train_loss') == column(runs[0], 'train_loss') != column(runs[1], 'train_loss')
