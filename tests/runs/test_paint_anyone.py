"""Painting without a run: files, folders and patterns, by the generator that comes along or without a network."""

import signal

import numpy as np
import pytest
import skimage.data
from PIL import Image

from tests.helpers import mtimes
from timm_repaint import FelzenszwalbMasks, paint
from timm_repaint.errors import UsageError
from timm_repaint.masks.label_png import save_labels


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """Two classes of photographs."""
    folder = tmp_path_factory.mktemp('photos')
    for name in ('cat/chelsea.png', 'cat/astronaut.jpg', 'cup/coffee.png'):
        (folder / name).parent.mkdir(exist_ok=True)
        pixels = getattr(skimage.data, name.split('/')[1].split('.')[0])()
        Image.fromarray(pixels).resize((96, 64)).save(folder / name)
    return folder


def call(*args):
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return paint.main([str(arg) for arg in (*args, '--device', 'cpu')])
    finally:
        signal.signal(signal.SIGTERM, handler)


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob('*.*')} - {'manifest.json'}


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert('RGB')).astype(int)


@pytest.mark.parametrize('painter', ['pretrained', 'shift', 'mean', 'jitter', 'randconv'])
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


def test_another_painter_or_strength_is_refused_in_the_same_folder(photos, tmp_path):
    out = tmp_path / 'out'
    assert call(photos, out, '--painter', 'mean', '--copies', 1, '--workers', 1) == 0
    before = mtimes(out)
    for options, message in (
        (('--painter', 'shift'), 'painter is mean, not shift'),
        (('--painter', 'mean', '--strength', '0.5'), 'strength is 1.0, not 0.5'),
        (('--painter', 'pretrained'), 'painter is mean, not None'),
        (('--painter', 'mean', '--format', 'jpg'), 'format is png, not jpg'),
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
