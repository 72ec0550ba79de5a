"""Painting without a run: files, folders and patterns, by the generator that comes along or without a network."""

import base64
import io
import re
import shutil

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image, ImageCms

from tests.helpers import call_main, mtimes
from tests.runs.test_paint import call, pixels
from tests.unit.masks.test_deeplab import small_v2
from timm_repaint import DeepLabV2Masks, FelzenszwalbMasks, Repaint
from timm_repaint.errors import UsageError
from timm_repaint.masks.__main__ import main as make_masks
from timm_repaint.masks.folder import CachedMasks
from timm_repaint.masks.label_png import load_labels, save_labels


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """Two classes of photographs."""
    folder = tmp_path_factory.mktemp('photos')
    for name in ('cat/chelsea.png', 'cat/astronaut.jpg', 'cup/coffee.png'):
        (folder / name).parent.mkdir(exist_ok=True)
        pixels = getattr(skimage.data, name.split('/')[1].split('.')[0])()
        Image.fromarray(pixels).resize((96, 64)).save(folder / name)
    return folder


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob('*.*')} - {'manifest.json'}


@pytest.mark.parametrize('painter', ['pretrained', 'shift', 'mean', 'jitter', 'randconv', 'shift-randconv'])
def test_each_painter_paints_a_folder_of_classes(photos, tmp_path, painter):
    assert call(photos, tmp_path / 'out', '--painter', painter, '--copies', 1, '--workers', 1) == 0
    assert names(tmp_path / 'out') == {'cat/chelsea-1.png', 'cat/astronaut-1.png', 'cup/coffee-1.png'}
    change = np.abs(pixels(tmp_path / 'out/cat/chelsea-1.png') - pixels(photos / 'cat/chelsea.png'))
    assert change.mean() > 1


@pytest.mark.parametrize(
    ('words', 'wanted'),
    [
        (('cat/chelsea.png',), {'chelsea-1.png'}),
        (('cat', 'cup'), {'cat/chelsea-1.png', 'cat/astronaut-1.png', 'cup/coffee-1.png'}),
        (('cat/*.png', 'cup/coffee.png'), {'cat/chelsea-1.png', 'cup/coffee-1.png'}),
        (('**/c*.png',), {'cat/chelsea-1.png', 'cup/coffee-1.png'}),
        (('cat', 'cat/chelsea.png'), {'chelsea-1.png', 'astronaut-1.png'}),
    ],
)
def test_files_folders_and_patterns_keep_the_folders_that_tell_them_apart(photos, tmp_path, monkeypatch, words, wanted):
    monkeypatch.chdir(photos)
    if words == ('cat', 'cat/chelsea.png'):
        wanted = {f'cat/{name}' for name in wanted}
    assert call(*words, tmp_path / 'out', '--painter', 'shift', '--copies', 1, '--workers', 1) == 0
    assert names(tmp_path / 'out') == wanted


def test_strength_goes_from_the_original_to_the_repaint(photos, tmp_path):
    original = pixels(photos / 'cat/chelsea.png')
    painted = {}
    for strength in (0, 0.5, 1):
        out = tmp_path / f'{strength}'
        options = ('--painter', 'shift', '--strength', strength, '--copies', 1, '--max-size', 64, '--workers', 1)
        assert call(photos / 'cat/chelsea.png', out, *options) == 0
        painted[strength] = pixels(out / 'chelsea-1.png')
    assert np.array_equal(painted[0], original), 'also of an image that is painted smaller than it is'
    assert np.abs(painted[0.5] - (original + painted[1]) / 2).max() <= 1
    assert np.abs(painted[1] - original).mean() > 3


def test_processes_paint_as_one_does_and_a_second_call_leaves_all_as_it_is(photos, tmp_path):
    for workers in (1, 2):
        assert call(photos, tmp_path / f'{workers}', '--painter', 'pretrained', '--workers', workers) == 0
    assert names(tmp_path / '1') == names(tmp_path / '2') and len(names(tmp_path / '1')) == 9
    for name in names(tmp_path / '1'):
        assert np.array_equal(pixels(tmp_path / '1' / name), pixels(tmp_path / '2' / name))
    before = mtimes(tmp_path / '2')
    assert call(photos, tmp_path / '2', '--painter', 'pretrained', '--workers', 2) == 0
    assert mtimes(tmp_path / '2') == before


@pytest.mark.parametrize('options', [(), ('--strength', 0.5), ('--strength', 0.5, '--format', 'jpg')])
def test_repaints_of_a_photograph_with_a_profile_are_known_again_and_have_none(photos, tmp_path, options):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    noise = np.random.default_rng(0).bytes(4000)  # a long one, as of a printer
    with Image.open(photos / 'cat/astronaut.jpg') as picture:
        picture.save(tmp_path / 'a.jpg', icc_profile=profile + noise)
    options = ('--painter', 'shift', *options, '--copies', 1, '--workers', 1)
    for _ in range(2):
        assert call(tmp_path / 'a.jpg', tmp_path / 'out', *options) == 0
    (path,) = (tmp_path / 'out').glob('a-1.*')
    with Image.open(path) as picture:
        assert 'icc_profile' not in picture.info


def test_jpegs_are_small_and_known_again(photos, tmp_path):
    options = ('--painter', 'shift', '--format', 'jpg', '--copies', 1, '--workers', 1)
    assert call(photos, tmp_path / 'out', *options) == 0
    assert names(tmp_path / 'out') == {'cat/chelsea-1.jpg', 'cat/astronaut-1.jpg', 'cup/coffee-1.jpg'}
    with Image.open(tmp_path / 'out/cat/chelsea-1.jpg') as picture:
        assert (picture.format, picture.size) == ('JPEG', (96, 64))
    before = mtimes(tmp_path / 'out')
    assert call(photos, tmp_path / 'out', *options) == 0
    assert mtimes(tmp_path / 'out') == before
    Image.new('RGB', (96, 64)).save(tmp_path / 'out/cat/chelsea-1.jpg')
    with pytest.raises(UsageError, match=r'chelsea-1\.jpg was there before and is no repaint'):
        call(photos, tmp_path / 'out', *options, '--workers', 2)


def test_masks_of_ones_own_say_where_segments_are(photos, tmp_path):
    labels = np.zeros((64, 96), np.uint8)
    labels[:, 48:] = 7
    for name in ('cat/chelsea', 'cat/astronaut', 'cup/coffee'):
        save_labels(tmp_path / f'masks/{name}.png', labels)
    options = ('--painter', 'mean', '--mask-dir', tmp_path / 'masks', '--copies', 1, '--workers', 1)
    assert call(photos, tmp_path / 'out', *options) == 0
    painted = pixels(tmp_path / 'out/cat/chelsea-1.png')
    assert len(np.unique(painted.reshape(-1, 3), axis=0)) == 2
    original = pixels(photos / 'cat/chelsea.png')
    assert np.abs(painted[0, 0] - original[:, :48].mean(axis=(0, 1))).max() <= 1
    (tmp_path / 'masks/cat/chelsea.png').unlink()
    assert call(photos, tmp_path / 'other', *options) == 1, 'an image without a mask is named'


def test_weights_of_the_command_line_stand_for_those_of_a_run_that_moved(photos, tmp_path):
    weights, run = tmp_path / 'here.pth', tmp_path / 'run'
    torch.save(small_v2().state_dict(), weights)
    run.mkdir()
    repaint = Repaint(mean=(0.5,) * 3, std=(0.5,) * 3, masks=DeepLabV2Masks(str(weights)))
    torch.save(repaint.state_dict(), run / 'last.pth.tar')
    (run / 'args.yaml').write_text(f'mask: deeplabv2\nmask_checkpoint: {tmp_path}/gone.pth\n')
    words = (photos / 'cup', tmp_path / 'out', '--run', run, '--copies', 1, '--workers', 1)
    with pytest.raises(UsageError, match=r'gone\.pth'):
        call(*words)
    assert call(*words, '--mask-checkpoint', weights) == 0
    assert names(tmp_path / 'out') == {'coffee-1.png'}


def test_a_source_of_masks_is_chosen_by_name(photos, tmp_path):
    shapes = {}
    for mask in ('fh', 'superpixels'):
        options = ('--painter', 'mean', '--mask', mask, '--copies', 1, '--workers', 1)
        assert call(photos / 'cup/coffee.png', tmp_path / mask, *options) == 0
        shapes[mask] = pixels(tmp_path / mask / 'coffee-1.png')
    segments = FelzenszwalbMasks()(pixels(photos / 'cup/coffee.png').astype(np.uint8))
    assert len(np.unique(shapes['fh'].reshape(-1, 3), axis=0)) <= len(np.unique(segments))
    assert not np.array_equal(shapes['fh'], shapes['superpixels'])


# Refused -------------------------------------------------------------------------------------------------------------


def test_a_learned_painter_is_refused_in_the_folder_of_one_without_masks(photos, tmp_path):
    assert call(photos, tmp_path / 'out', '--painter', 'randconv', '--copies', 1, '--workers', 1) == 0
    with pytest.raises(UsageError, match='painter is randconv, not none'):
        call(photos, tmp_path / 'out', '--painter', 'pretrained', '--copies', 1)


def test_another_painter_or_strength_is_refused_in_the_same_folder(photos, tmp_path):
    out = tmp_path / 'out'
    assert call(photos, out, '--painter', 'mean', '--copies', 1, '--workers', 1) == 0
    before = mtimes(out)
    for options, message in (
        (('--painter', 'shift'), 'painter is mean, not shift'),
        (('--painter', 'mean', '--strength', '0.5'), 'strength is 1.0, not 0.5'),
        (('--painter', 'pretrained'), 'painter is mean, not none'),
        (
            ('--painter', 'pretrained', '--seed', '1'),
            r'is none, not [0-9a-f]{8}\.\.\.; painter is mean, not none; seed is',
        ),
        (('--painter', 'mean', '--format', 'jpg'), 'format is png, not jpg'),
        (('--painter', 'mean', '--mask', 'superpixels'), 'mask_source is fh, not superpixels'),
    ):
        with pytest.raises(UsageError, match=message):
            call(photos, out, *options, '--copies', 1)
    assert mtimes(out) == before


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('OUT',), 'give --run RUN, or --painter pretrained'),
        (('OUT', '--painter', 'shift', '--strength', '2'), '--strength is 2.0; it has to be from 0'),
        (('OUT', '--painter', 'oil'), "invalid choice: 'oil'"),
        (('OUT', '--painter', 'shift', '--run', 'x'), 'not allowed with argument'),
        (('OUT', '--painter', 'shift', '--mask', 'fh', '--mask-dir', 'x'), 'leave one of them out'),
        (('OUT', '--painter', 'randconv', '--mask', 'deeplabv2'), 'needs no masks; leave --mask deeplabv2 out'),
        (('OUT', '--painter', 'randconv', '--mask-checkpoint', 'x'), 'needs no masks; leave --mask-checkpoint x out'),
        (('OUT', '--painter', 'mean', '--mask-dir', 'x', '--mask-checkpoint', 'y'), 'leave --mask-checkpoint y out'),
        (('*.heic', 'OUT', '--painter', 'shift'), '*.heic is no folder, no image and no pattern of any'),
        (('PHOTOS/out', '--painter', 'shift'), 'would be repainted; give a folder outside'),
    ],
)
def test_wrong_words_are_named_in_a_line(photos, tmp_path, capsys, words, message):
    places = {'OUT': tmp_path / 'out', 'PHOTOS/out': photos / 'out'}
    with pytest.raises(SystemExit):
        call(photos, *(places.get(word, word) for word in words))
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_weights_for_masks_that_need_none_and_a_missing_folder_of_masks_are_named(photos, tmp_path):
    for options, message in (
        (('--painter', 'mean', '--mask-checkpoint', 'x.pth'), 'x.pth is for deeplabv2 and deeplabv3, the masks are fh'),
        (('--painter', 'mean', '--mask', 'superpixels', '--mask-checkpoint', 'x.pth'), 'the masks are superpixels'),
        (('--painter', 'randconv', '--mask-dir', tmp_path / 'nosuch'), 'nosuch does not exist'),
    ):
        with pytest.raises(UsageError, match=message):
            call(photos, tmp_path / 'out', *options)
    assert not (tmp_path / 'out').exists()


# What comes along: see test_painted_sets.py too -----------------------------------------------------------------------


def test_masks_of_timm_repaint_masks_lie_beside_the_repaints_and_serve_again(photos, tmp_path):
    masks = tmp_path / 'masks'
    call_main(make_masks, photos, masks, '--fh-backend', 'skimage', '--workers', 1)
    options = ('--mask-dir', masks, '--copies', 1, '--workers', 1)
    assert call(photos, tmp_path / 'out', '--painter', 'mean', *options) == 0
    again = CachedMasks(tmp_path / 'out-masks', tmp_path / 'out')
    for name in ('cat/chelsea', 'cup/coffee'):
        labels = again.load(tmp_path / f'out/{name}-1.png', (64, 96))
        assert np.array_equal(labels, load_labels(masks / f'{name}.png'))


# A look at them -------------------------------------------------------------------------------------------------------


def test_a_sheet_and_a_page_show_originals_beside_their_repaints(photos, tmp_path):
    images = tmp_path / '<b>photos'
    shutil.copytree(photos, images)
    sheet, page = tmp_path / 'sheet.jpg', tmp_path / 'page.html'
    options = ('--painter', 'pretrained', '--copies', 2, '--workers', 1, '--sheet', sheet, '--html', page)
    for _ in range(2):
        assert call(images, tmp_path / 'out', *options) == 0
    shown = pixels(sheet)
    assert shown.shape == (3 * 155 + 6, 3 * 230 + 6, 3)  # cells of 224 x 149 px, as photographs of 96 x 64 px are shown
    for left, path in ((6, images / 'cat/astronaut.jpg'), (236, tmp_path / 'out/cat/astronaut-1.png')):
        with Image.open(path) as picture:
            large = np.asarray(picture.convert('RGB').resize((224, 149)), np.float32)
        assert np.abs(shown[6:155, left : left + 224] - large).mean() < 12
    text = page.read_text()
    assert text.count('<img ') == 9 and '<b>photos' not in text and '&lt;b&gt;photos' in text
    pictures = re.findall(r'base64,([^"]+)"', text)
    with Image.open(io.BytesIO(base64.b64decode(pictures[0]))) as picture:
        assert picture.size == (224, 149)
    assert 'http' not in text, 'it needs no other file'


def test_no_sheet_or_page_is_written_over_a_file_of_ones_own(photos, tmp_path):
    Image.new('RGB', (8, 8)).save(tmp_path / 'mine.png')
    (tmp_path / 'mine.html').write_text('<!doctype html>')
    for option, name, message in (
        ('--sheet', 'mine.png', 'was there before and is no sheet'),
        ('--html', 'mine.html', 'was there before and is no page of ours'),
        ('--sheet', 'mine.gif', r'end its name in \.png or \.jpg'),
    ):
        before = mtimes(tmp_path)
        with pytest.raises(UsageError, match=message):
            call(photos, tmp_path / 'out', '--painter', 'shift', option, tmp_path / name)
        assert mtimes(tmp_path) == before
