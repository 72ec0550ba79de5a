import json
import multiprocessing
import os
import signal

import numpy as np
import pytest
from PIL import Image

from tests.helpers import mtimes, run_script
from tests.runs.masks.cache_command import NAMES, fails, run, write_images
from timm_repaint.errors import UsageError
from timm_repaint.masks import __main__ as command
from timm_repaint.masks.felzenszwalb import FelzenszwalbMasks
from timm_repaint.masks.folder import CachedMasks, FolderMasks
from timm_repaint.masks.label_png import load_labels, save_labels
from timm_repaint.masks.workers import in_workers


def test_unreadable_images_are_listed_at_the_end_and_all_others_are_done(tmp_path, capsys):
    images = write_images(tmp_path / 'images', NAMES)
    (images / 'train/cat/a.png').write_bytes(b'no image')
    whole = (images / 'train/dog/c.png').read_bytes()
    (images / 'train/dog/c.png').write_bytes(whole[: len(whole) // 2])
    assert run(images, tmp_path / 'masks') == 1
    said = capsys.readouterr()
    assert 'unreadable: train/cat/a.png: no image that Pillow can read' in said.err
    assert 'unreadable: train/dog/c.png: ' in said.err
    assert '2 masks made, 0 were there, 2 images failed' in said.out
    assert load_labels(tmp_path / 'masks/val/cat/d.png').shape == (40, 60)


def test_unreadable_images_may_be_left_out_as_training_leaves_them_out_but_nothing_else(tmp_path, monkeypatch):
    images = write_images(tmp_path / 'images', NAMES)
    (images / NAMES[0]).write_bytes(b'not an image')
    assert run(images, tmp_path / 'masks') == 1
    assert run(images, tmp_path / 'masks', '--skip-unreadable') == 0
    (tmp_path / 'masks' / NAMES[1]).unlink()

    def refuse(self, image_u8):
        raise ValueError('too many segments')

    monkeypatch.setattr(FelzenszwalbMasks, '__call__', refuse)
    assert run(images, tmp_path / 'masks', '--skip-unreadable') == 1


def test_an_image_of_too_many_segments_is_listed_like_an_unreadable_one(tmp_path, capsys):
    (tmp_path / 'images').mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (260, 260, 3), dtype=np.uint8)).save(
        tmp_path / 'images/a.png'
    )
    options = ('--fh-scale', 0.01, '--fh-min-size', 1, '--size', 260)
    assert run(tmp_path / 'images', tmp_path / 'masks', *options) == 1
    assert 'a.png: ValueError: ' in capsys.readouterr().err


@pytest.mark.parametrize('text', ['0/4', '5/4', '-1/4', '1/0'])
def test_a_shard_outside_1_to_n_is_refused(tmp_path, capsys, text):
    assert f'shard {text} does not exist' in fails(capsys, tmp_path, tmp_path / 'masks', f'--shard={text}')


@pytest.mark.parametrize(
    ('option', 'message'),
    [('--shard=2', "'2' is not I/N"), ('--shard=a/b', "'a/b' is not I/N"), ('--size=0', '0 is below 1')],
)
def test_malformed_options_are_refused(tmp_path, capsys, option, message):
    assert message in fails(capsys, tmp_path, tmp_path / 'masks', option)


@pytest.mark.parametrize(
    ('names', 'out', 'message'),
    [
        (None, 'masks', r'image folder .*images does not exist'),
        ([], 'masks', r'image folder .*images has no images'),
        (['a.png'], 'images/masks', r'images/masks lies inside the image folder'),
        (['cat/a.png', 'cat/a.jpg'], 'masks', r'cat/a.jpg and cat/a.png would share the mask cat/a.png; rename one'),
    ],
)
def test_folders_that_cannot_work_are_refused_before_any_work(tmp_path, names, out, message):
    if names is not None:
        (tmp_path / 'images').mkdir()
        write_images(tmp_path / 'images', names)
    with pytest.raises(UsageError, match=message):
        run(tmp_path / 'images', tmp_path / out)
    assert not (tmp_path / 'masks').exists()


def test_a_file_that_is_neither_folder_nor_tar_is_said_to_be_none(tmp_path):
    (tmp_path / 'images.zip').write_bytes(b'PK')
    with pytest.raises(UsageError, match=r'images\.zip is no folder'):
        run(tmp_path / 'images.zip', tmp_path / 'masks')


def test_a_folder_of_other_files_is_not_taken_for_a_cache(tmp_path):
    images = write_images(tmp_path / 'images', NAMES)
    save_labels(tmp_path / 'masks/train/cat/a.png', np.zeros((40, 60), int))
    with pytest.raises(UsageError, match=r'masks holds files, but no manifest\.json; give an empty or a new folder'):
        run(images, tmp_path / 'masks')


GOOD = {
    'source': 'fh', 'kind': 'segment', 'num_labels': None, 'size_px': 9, 'parameters': {}, 'format': 1,
    'timm_repaint': '',
}  # fmt: skip


@pytest.mark.parametrize(
    'text',
    [
        '{',
        '[]',
        '[' * 100_000,
        '[' + '9' * 5000 + ']',
        '{"source": 1}',
        *(
            json.dumps({**GOOD, **wrong})
            for wrong in (
                {'source': None}, {'kind': 3}, {'kind': 'outline'}, {'kind': 'semantic'}, {'num_labels': 5},
                {'num_labels': 10**9, 'kind': 'semantic'}, {'num_labels': True}, {'size_px': 0}, {'size_px': '9'},
                {'size_px': 1.5}, {'parameters': []}, {'format': 2}, {'more': 1},
            )
        ),
    ],
    ids=lambda text: text[:9],
)  # fmt: skip
def test_a_damaged_or_foreign_manifest_is_named(tmp_path, text):
    (tmp_path / 'manifest.json').write_text(json.dumps(GOOD))
    CachedMasks(tmp_path, tmp_path)
    (tmp_path / 'manifest.json').write_text(text)
    with pytest.raises(UsageError, match=r'manifest\.json is not (a|the) manifest') as error:
        CachedMasks(tmp_path, tmp_path)
    assert len(str(error.value)) < 500 and '\n' not in str(error.value)


def test_an_output_that_cannot_be_written_is_named_and_what_is_there_stays(tmp_path):
    images = write_images(tmp_path / 'images', NAMES)
    run(images, tmp_path / 'masks', '--shard', '1/2')
    before = mtimes(tmp_path / 'masks')
    (tmp_path / 'masks/val').write_text('a file in the way')
    with pytest.raises(UsageError, match=r'cannot write .*masks/val/cat/d\.png: Not a directory'):
        run(images, tmp_path / 'masks')
    assert before.items() <= mtimes(tmp_path / 'masks').items()


def test_a_mistake_ends_the_command_with_one_line_and_exit_code_1(tmp_path):
    done = run_script('-m timm_repaint.masks', tmp_path / 'gone', tmp_path / 'masks', fails=True)
    assert done.returncode == 1
    assert done.stderr == f'error: image folder {tmp_path}/gone does not exist\n'


def test_a_killed_worker_is_said_and_the_others_end():
    before = {*multiprocessing.active_children()}
    with pytest.raises(UsageError, match=r'a worker process was killed .* with fewer --workers') as stop:
        list(in_workers(kill_itself_at_five, range(400), workers=2))
    assert {*multiprocessing.active_children()} <= before, stop  # the process's end waits for them


def kill_itself_at_five(items):
    if 5 in items:
        os.kill(os.getpid(), signal.SIGKILL)
    return items


def test_workers_return_every_result_once():
    assert sorted(in_workers(double, range(101), workers=3)) == list(range(0, 202, 2))
    assert list(in_workers(double, range(5), workers=1)) == [0, 2, 4, 6, 8]


def double(items):
    return [2 * item for item in items]


def test_a_mistake_in_a_worker_leaves_no_worker_for_which_the_process_would_wait_for_ever():
    before = {*multiprocessing.active_children()}
    with pytest.raises(UsageError, match='five is not wanted') as stop:
        list(in_workers(refuse_five, range(400), workers=2))
    assert {*multiprocessing.active_children()} <= before, stop  # which holds the mistake, as the process's end does


def refuse_five(items):
    if 5 in items:
        raise UsageError('five is not wanted')
    return items


def test_check_lists_what_is_missing_damaged_or_of_another_size(tmp_path, capsys):
    images = write_images(tmp_path / 'images', [*NAMES, 'val/cat/e.png'])
    run(images, tmp_path / 'masks')
    assert run(images, tmp_path / 'masks', '--check') == 0
    assert '5 masks good, 0 bad' in capsys.readouterr().out
    (tmp_path / 'masks' / NAMES[0]).unlink()
    (tmp_path / 'masks' / NAMES[1]).write_bytes(b'\x89PNG')
    save_labels(tmp_path / 'masks' / NAMES[2], np.zeros((60, 40), int))
    (images / NAMES[3]).write_bytes(b'no image')
    assert run(images, tmp_path / 'masks', '--check') == 1
    said = capsys.readouterr()
    assert '1 masks good, 4 bad' in said.out
    lines = [line for line in said.err.splitlines() if line.startswith('bad: ')]
    for name, line, problem in zip(
        NAMES,
        lines,
        ('does not exist', 'cannot be read', 'is 60x40, its image is 40x60', 'image: no image'),
        strict=True,
    ):
        assert line.startswith(f'bad: {name}: ') and problem in line


def test_the_mask_of_an_image_that_was_replaced_is_named_and_made_again(tmp_path, capsys):
    images, masks = write_images(tmp_path / 'images', NAMES), tmp_path / 'masks'
    run(images, masks)
    before = mtimes(masks)
    os.utime(images / NAMES[1])  # a copy of the folder has other times, and the same images
    Image.new('RGB', (60, 40), (0, 9, 200)).save(images / NAMES[0])
    capsys.readouterr()
    assert run(images, masks, '--check') == 1
    assert f'bad: {NAMES[0]}: ' in (said := capsys.readouterr().err) and 'was made from another image' in said
    with pytest.raises(UsageError, match='was made from another image'):
        CachedMasks(masks, images).read(images / NAMES[0], (40, 60))
    assert run(images, masks) == 0
    assert '1 masks made, 3 were there' in capsys.readouterr().out
    assert {name for name, time in mtimes(masks).items() if time != before[name]} == {NAMES[0]}
    assert run(images, masks, '--check') == 0


def test_a_mask_of_an_older_version_that_may_be_of_another_image_is_named_and_made_again(tmp_path, capsys):
    images, masks = write_images(tmp_path / 'images', NAMES), tmp_path / 'masks'
    run(images, masks)
    save_labels(masks / NAMES[0], np.zeros((40, 60), int))
    assert run(images, masks, '--check') == 0
    os.utime(masks / NAMES[0], (0, 0))
    assert run(images, masks, '--check') == 1
    assert f'{NAMES[0]} was made from another image' in capsys.readouterr().err
    assert run(images, masks) == 0
    assert '1 masks made, 3 were there' in capsys.readouterr().out


def test_control_characters_in_a_name_do_not_reach_the_terminal(tmp_path, capsys):
    images = write_images(tmp_path / 'images', [*NAMES, 'train/cat/e\x1b[2J\n.png'])
    (images / 'train/cat/e\x1b[2J\n.png').write_bytes(b'no image')
    assert run(images, tmp_path / 'masks') == 1
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith('unreadable'))
    assert line.startswith('unreadable: train/cat/e\\x1b[2J .png: no image')


def test_check_without_a_cache_says_how_to_make_one(tmp_path):
    images = write_images(tmp_path / 'images', NAMES)
    with pytest.raises(UsageError, match=r'manifest.json: No such file .* timm-repaint masks IMAGES'):
        run(images, tmp_path / 'masks', '--check')


def test_a_folder_of_masks_gives_each_image_its_own(tmp_path):
    save_labels(tmp_path / 'masks/cat/a.png', np.array([[0, 3], [255, 1]]))
    masks = FolderMasks(tmp_path / 'masks', tmp_path / 'images', num_labels=4)
    assert (masks.kind, masks.num_labels) == ('semantic', 4)
    assert masks.mask_path(tmp_path / 'images/cat/a.JPEG') == str(tmp_path / 'masks/cat/a.png')
    np.testing.assert_array_equal(masks.load(tmp_path / 'images/cat/a.JPEG', (2, 2)), [[0, 3], [255, 1]])
    assert FolderMasks(tmp_path / 'masks', tmp_path / 'images').kind == 'segment'


@pytest.mark.parametrize(
    ('labels', 'num_labels', 'message'),
    [
        (np.zeros((2, 3), int), None, r'mask .*a\.png is 2x3, its image is 3x2 and wants 3x2; give label maps of the'),
        (np.array([[0, 1], [2, 255], [4, 0]]), 4, r'mask .*a\.png has label 4, classes are 0 to 3 and 255 \(unknown\)'),
    ],
)
def test_a_mask_that_does_not_fit_is_named_with_both_values(tmp_path, labels, num_labels, message):
    save_labels(tmp_path / 'a.png', labels)
    with pytest.raises(UsageError, match=message):
        FolderMasks(tmp_path, tmp_path / 'images', num_labels).read(tmp_path / 'images/a.jpg', (3, 2))


def test_more_classes_than_a_byte_tells_apart_are_refused(tmp_path):
    with pytest.raises(UsageError, match='masks of 256 classes; at most 255 are possible'):
        FolderMasks(tmp_path, tmp_path, 256)


def test_a_missing_folder_and_an_image_from_elsewhere_are_named(tmp_path):
    with pytest.raises(UsageError, match=r'mask folder .*gone does not exist'):
        FolderMasks(tmp_path / 'gone', tmp_path)
    with pytest.raises(UsageError, match=r'image .*other/a\.png is not in .*images, so it has no mask'):
        FolderMasks(tmp_path, tmp_path / 'images').mask_path(tmp_path / 'other/a.png')


@pytest.mark.parametrize(
    'words', [('--mask-checkpoint', 'x.pth'), ('--mask', 'superpixels', '--fh-scale', '3')], ids=' '.join
)
def test_options_that_do_nothing_with_a_mask_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        command.parse_args(['IMAGES', 'OUT', *words])
    assert f'{words[-2]} does nothing with --mask ' in capsys.readouterr().err


def test_without_options_the_command_makes_fh_masks_of_256_pixels_in_one_shard():
    args = command.parse_args(['IMAGES', 'OUT'])
    assert (args.mask, args.size, args.shard, args.check) == ('fh', 256, (1, 1), False)
