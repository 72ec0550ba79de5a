"""Repainting a folder of images: python -m timm_repaint.paint RUN IMAGES OUT."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import REPAINT, REPO, mtimes, run_script, train_here
from timm_repaint import paint
from timm_repaint.data.shapes import ShapesDataset
from timm_repaint.errors import UsageError


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return train_here(tmp_path_factory.mktemp('repaint'), *REPAINT, '--epochs', 1)


@pytest.fixture
def images(tmp_path):
    """Three pictures at two depths, of different sizes."""
    folder = tmp_path / 'images'
    for index, (name, size) in enumerate(
        {'a.png': (40, 32), 'cat/b.jpg': (33, 57), 'cat/old/c.JPEG': (64, 48)}.items()
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        ShapesDataset(image_size=64)[index][0].resize(size).save(folder / name)
    return folder


def call(*args):
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return paint.main([str(arg) for arg in (*args, '--device', 'cpu')])
    finally:
        signal.signal(signal.SIGTERM, handler)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert('RGB')).astype(int)


def test_the_tree_is_mirrored_in_the_images_own_sizes(run, images, tmp_path):
    run_script('-m timm_repaint.paint', run, images, tmp_path / 'out', '--copies', 2)
    stems = {'a': (40, 32), 'cat/b': (33, 57), 'cat/old/c': (64, 48)}
    wanted = {f'{stem}-{copy}.png': size for stem, size in stems.items() for copy in (1, 2)}
    found = {}
    for path in (tmp_path / 'out').rglob('*.png'):
        with Image.open(path) as image:
            image.load()
            found[str(path.relative_to(tmp_path / 'out'))] = image.size
    assert found == wanted


def test_copies_differ_from_each_other_and_from_the_image(run, images, tmp_path):
    assert call(run, images, tmp_path / 'out', '--copies', 2) == 0
    first, second = (pixels(tmp_path / 'out' / f'a-{copy}.png') for copy in (1, 2))
    assert np.abs(first - second).mean() > 1
    assert np.abs(first - pixels(images / 'a.png')).mean() > 1


def test_a_run_with_swapped_detail_paints_with_that_of_the_image_itself(images, tmp_path):
    run = train_here(tmp_path, *REPAINT, '--epochs', 1, '--repaint-detail', 'swap')
    assert call(run, images, tmp_path / 'out', '--copies', 2) == 0
    first, second = (pixels(tmp_path / 'out' / f'a-{copy}.png') for copy in (1, 2))
    assert np.abs(first - second).mean() > 1


def test_the_seed_decides(run, images, tmp_path):
    for name, seed in (('one', 0), ('two', 0), ('three', 1)):
        call(run, images, tmp_path / name, '--copies', 1, '--seed', seed)
    one, two, three = (pixels(tmp_path / name / 'cat' / 'b-1.png') for name in ('one', 'two', 'three'))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, three)


def test_a_second_call_paints_only_what_is_missing_and_as_before(run, images, tmp_path):
    out = tmp_path / 'out'
    call(run, images, out)
    before, lost = mtimes(out), pixels(out / 'cat' / 'b-2.png')
    for copy in (1, 2, 3):
        (out / 'cat' / f'b-{copy}.png').unlink()
    call(run, images, out)
    after = mtimes(out)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {f'cat/b-{copy}.png' for copy in (1, 2, 3)}
    assert np.array_equal(pixels(out / 'cat' / 'b-2.png'), lost)


def test_an_image_that_was_replaced_is_painted_again_and_more_images_change_no_seed(run, images, tmp_path):
    out = tmp_path / 'out'
    call(run, images, out, '--copies', 1)
    before = mtimes(out)
    os.utime(images / 'cat/b.jpg')  # a copy of the folder has other times, and the same images
    ShapesDataset(image_size=64)[5][0].resize((40, 32)).save(images / 'a.png')
    ShapesDataset(image_size=64)[6][0].save(images / '0.png')
    call(run, images, out, '--copies', 1)
    after = mtimes(out)
    assert {name for name in after if after[name] != before.get(name)} == {'a-1.png', '0-1.png'}
    call(run, images, tmp_path / 'whole', '--copies', 1)
    for name in ('0-1.png', 'a-1.png', 'cat/b-1.png'):
        assert np.array_equal(pixels(out / name), pixels(tmp_path / 'whole' / name))


def test_linked_folders_are_followed_and_hidden_ones_left_out(run, images, tmp_path):
    (tmp_path / 'links').mkdir()
    (tmp_path / 'links/cat').symlink_to(images / 'cat')
    (images / 'cat/.ipynb_checkpoints').mkdir()
    ShapesDataset()[0][0].save(images / 'cat/.ipynb_checkpoints/b.png')
    assert call(run, tmp_path / 'links', tmp_path / 'out', '--copies', 1) == 0
    painted = {str(path.relative_to(tmp_path / 'out')) for path in (tmp_path / 'out').rglob('*.png')}
    assert painted == {'cat/b-1.png', 'cat/old/c-1.png'}
    (images / 'cat/old/back').symlink_to(images)
    with pytest.raises(UsageError, match='back leads back to'):
        call(run, images, tmp_path / 'out', '--copies', 1)


def test_halves_of_files_that_a_killed_call_left_are_removed(run, images, tmp_path):
    half = tmp_path / 'out/cat' / f'.{"0" * 32}.part'
    call(run, images, tmp_path / 'out', '--copies', 1)
    for seconds in (time.time(), 0):
        half.write_bytes(b'half')
        os.utime(half, (seconds, seconds))
        call(run, images, tmp_path / 'out', '--copies', 1)
        assert half.exists() == bool(seconds), 'that of a moment ago may be still written'


def test_a_killed_call_leaves_whole_pngs_and_can_go_on(run, tmp_path):
    images, out = tmp_path / 'images', tmp_path / 'out'
    images.mkdir()
    for index in range(40):
        ShapesDataset(image_size=128, num_samples=40)[index][0].save(images / f'{index:02}.png')
    command = [sys.executable, '-m', 'timm_repaint.paint', run, images, out, '--copies', '2', '--device', 'cpu']
    process = subprocess.Popen(command, cwd=REPO, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    deadline = time.monotonic() + 120
    while len(list(out.glob('*.png'))) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert 5 <= len(list(out.glob('*.png'))) < 80
    for path in out.glob('*.png'):
        pixels(path)  # raises if it is cut off
    assert call(run, images, out, '--copies', 2) == 0
    assert {path.name for path in out.glob('*.png')} == {f'{i:02}-{copy}.png' for i in range(40) for copy in (1, 2)}


def test_unreadable_images_are_named_and_the_others_painted(run, images, tmp_path):
    (images / 'cat' / 'broken.jpg').write_bytes(b'not a picture')
    cut = (images / 'a.png').read_bytes()
    (images / 'cut.png').write_bytes(cut[: len(cut) // 2])
    done = run_script('-m timm_repaint.paint', run, images, tmp_path / 'out', '--copies', 1, fails=True)
    assert done.returncode == 1
    assert f'unreadable: {images}/cat/broken.jpg: no image that Pillow can read' in done.stderr
    assert done.stdout.splitlines()[-1] == f'3 repaints of 3 images are in {tmp_path}/out, 2 could not be read'
    assert f'unreadable: {images}/cut.png' in done.stderr
    assert 'Traceback' not in done.stderr
    assert len(list((tmp_path / 'out').rglob('*.png'))) == 3


def exotic_images():
    picture = ShapesDataset(image_size=48)[0][0]
    rotated = picture.resize((60, 40))
    rotated.getexif()[0x0112] = 6  # to be turned by a quarter
    sixteen_bit = Image.fromarray((np.arange(48 * 48).reshape(48, 48) * 28).astype(np.uint16))
    return {
        'grey.png': (picture.convert('L'), (48, 48)),
        'grey16.png': (sixteen_bit, (48, 48)),
        'palette.png': (picture.convert('P'), (48, 48)),
        'rgba.png': (picture.convert('RGBA'), (48, 48)),
        'cmyk.jpg': (picture.convert('CMYK'), (48, 48)),
        'pixel.png': (picture.resize((1, 1)), (1, 1)),
        'line.png': (picture.resize((1, 200)), (1, 200)),
        'rotated.jpg': (rotated, (40, 60)),
        'large.jpg': (picture.resize((700, 90)), (700, 90)),
    }


def test_exotic_images_are_painted_in_their_size(run, tmp_path):
    images, out = tmp_path / 'images', tmp_path / 'out'
    images.mkdir()
    for name, (picture, _) in exotic_images().items():
        options = {'exif': picture.getexif()} if name == 'rotated.jpg' else {}
        picture.save(images / name, **options)
    assert call(run, images, out, '--copies', 1) == 0
    for name, (_, size) in exotic_images().items():
        with Image.open((out / name).with_suffix('').with_name(f'{name.split(".")[0]}-1.png')) as painted:
            assert (name, painted.size, painted.mode) == (name, size, 'RGB')


def test_images_of_one_name_but_other_endings_keep_apart(run, tmp_path):
    images, out = tmp_path / 'images', tmp_path / 'out'
    images.mkdir()
    ShapesDataset(image_size=32)[0][0].save(images / 'a.png')
    ShapesDataset(image_size=48)[1][0].save(images / 'a.jpg')
    ShapesDataset(image_size=64)[2][0].save(images / 'a.jpg.png')
    assert call(run, images, out, '--copies', 1) == 0
    sizes = {'a.png-1.png': 32, 'a.jpg-1.png': 48, 'a.jpg.png-1.png': 64}
    assert {path.name for path in out.iterdir()} == {*sizes, 'manifest.json'}
    for name, size in sizes.items():
        assert pixels(out / name).shape == (size, size, 3)


def test_a_checkpoint_file_stands_for_its_run(run, images, tmp_path):
    assert call(run / 'model_best.pth.tar', images, tmp_path / 'out', '--copies', 1) == 0
    assert len(list((tmp_path / 'out').rglob('*.png'))) == 3


# Refused -------------------------------------------------------------------------------------------------------------


def test_a_folder_without_images_is_refused(run, tmp_path):
    (tmp_path / 'images').mkdir()
    with pytest.raises(UsageError, match=f'no images in {tmp_path}/images; give a folder of them, or files'):
        call(run, tmp_path / 'images', tmp_path / 'out')


def test_a_folder_of_other_repaints_or_files_is_refused_and_left_as_it_is(run, images, tmp_path):
    out = tmp_path / 'out'
    call(run, images, out, '--copies', 1)
    before = mtimes(out)
    with pytest.raises(UsageError, match=r'manifest\.json is of others: seed is 0, not 1; use the same options'):
        call(run, images, out, '--copies', 1, '--seed', 1)
    other = tmp_path / 'other'
    other.mkdir()
    (other / 'args.yaml').write_text((run / 'args.yaml').read_text())
    content = torch.load(run / 'last.pth.tar', weights_only=False)
    torch.save({**content, 'epoch': 7}, other / 'last.pth.tar')
    with pytest.raises(UsageError, match='checkpoint_sha256 is'):
        call(other, images, out, '--copies', 1)
    assert mtimes(out) == before
    with pytest.raises(UsageError, match=r'holds files, but no manifest\.json'):
        call(run, images, images.parent / 'other', '--copies', 1)


def test_a_file_of_ones_own_is_not_overwritten(run, images, tmp_path):
    out = tmp_path / 'out'
    call(run, images, out, '--copies', 1)
    ShapesDataset()[0][0].save(out / 'a-1.png')
    mine = (out / 'a-1.png').read_bytes()
    with pytest.raises(UsageError, match=r'a-1\.png was there before and is no repaint'):
        call(run, images, out, '--copies', 1)
    assert (out / 'a-1.png').read_bytes() == mine
    shutil.copy(next(images.glob('*.png')), images / 'new.png')
    (out / 'a-1.png').rename(out / 'new-2.png')
    with pytest.raises(UsageError, match=r'new-2\.png was there before and is no repaint'):
        call(run, images, out, '--copies', 2)


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (('--copies', '0'), 'argument --copies: 0 is below 1'),
        (('--max-size', '8'), 'argument --max-size: 8 is below 32'),
    ],
)
def test_wrong_values_are_refused(args, message, run, images, tmp_path, capsys):
    with pytest.raises(SystemExit):
        call(run, images, tmp_path / 'out', *args)
    assert message in capsys.readouterr().err


def test_a_missing_folder_of_images_is_named(run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        call(run, tmp_path / 'nothing', tmp_path / 'out')
    assert f'{tmp_path}/nothing is no folder' in capsys.readouterr().err


def test_a_missing_run_and_a_run_without_generator_are_named(images, tmp_path):
    with pytest.raises(ValueError, match='nothing does not exist: RUN is the output folder'):
        call(tmp_path / 'nothing', images, tmp_path / 'out')
    plain = train_here(tmp_path, *REPAINT[1:], '--epochs', 1, name='plain')
    with pytest.raises(ValueError, match='has no generator: it is not a checkpoint of train'):
        call(plain, images, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_a_checkpoint_away_from_its_options_says_so(run, images, tmp_path):
    alone = tmp_path / 'alone.pth.tar'
    alone.write_bytes((run / 'last.pth.tar').read_bytes())
    with pytest.raises(ValueError, match=r'args\.yaml'):
        call(alone, images, tmp_path / 'out')
