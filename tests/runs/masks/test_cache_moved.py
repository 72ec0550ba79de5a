"""Masks of images that were moved, of other endings, or lie in shards that are not there."""

import io
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from tests.runs.masks.cache_command import fails, run, write_images
from timm_repaint.masks.label_png import load_labels


def swap(first: Path, second: Path) -> None:
    """By moves, which keep the files' own times."""
    aside = first.with_name('aside')
    for source, target in ((first, aside), (second, first), (aside, second)):
        os.rename(source, target)


def test_masks_of_images_that_changed_their_names_are_named_and_made_again(tmp_path, capsys):
    images, masks = write_images(tmp_path / 'images', ['a.png', 'b.png', 'c.png']), tmp_path / 'masks'
    assert run(images, masks) == 0
    before = [load_labels(masks / name).tolist() for name in ('a.png', 'b.png')]
    swap(images / 'a.png', images / 'b.png')
    assert run(images, masks, '--check') == 1
    said = capsys.readouterr()
    assert '1 masks good, 2 bad' in said.out and 'was made from another image' in said.err
    assert run(images, masks) == 0
    assert '2 masks made, 1 were there' in capsys.readouterr().out
    assert [load_labels(masks / name).tolist() for name in ('b.png', 'a.png')] == before


def test_check_looks_at_content_where_times_say_nothing(tmp_path, capsys):
    images, masks = write_images(tmp_path / 'images', ['a.png', 'b.png']), tmp_path / 'masks'
    assert run(images, masks) == 0
    swap(masks / 'a.png', masks / 'b.png')
    for name in ('a.png', 'b.png'):
        os.utime(masks / name)
    assert run(images, masks, '--check') == 1
    assert '0 masks good, 2 bad' in capsys.readouterr().out


def test_masks_of_moved_folders_are_kept(tmp_path, capsys):
    images, masks = write_images(tmp_path / 'images', ['a.png', 'b.png']), tmp_path / 'masks'
    assert run(images, masks) == 0
    for name in ('a.png', 'b.png'):
        os.rename(images / name, tmp_path / name)
        os.rename(tmp_path / name, images / name)
    assert run(images, masks) == 0
    assert '0 masks made, 2 were there' in capsys.readouterr().out


def test_images_of_other_endings_are_told_and_can_be_asked_for(tmp_path, capsys, caplog):
    images, masks = write_images(tmp_path / 'images', ['a.png', 'b.webp', 'c.webp']), tmp_path / 'masks'
    assert run(images, masks) == 0
    assert '1 masks made' in capsys.readouterr().out
    assert 'has images that are not read: 2 .webp; files are read that end with .jpeg .jpg .png' in caplog.text
    assert run(images, masks, '--input-key', '.png;.webp') == 0
    assert '2 masks made, 1 were there' in capsys.readouterr().out


def test_options_of_packed_images_are_refused_for_a_folder(tmp_path, capsys):
    images = write_images(tmp_path / 'images', ['a.png'])
    assert '--split is for hfds/ and wds/' in fails(capsys, images, tmp_path / 'masks', '--split', 'validation')
    assert '--data-dir is for hfds/ and wds/' in fails(capsys, images, tmp_path / 'masks', '--data-dir', tmp_path)


def test_a_torn_shard_is_no_unreadable_image(tmp_path, capsys):
    pytest.importorskip('webdataset')
    content = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert('RGB').save(content, 'PNG')
    with tarfile.open(tmp_path / 'train.tar', 'w') as shard:
        for number in range(3):
            for ending, data in (('png', content.getvalue()), ('cls', b'0')):
                entry = tarfile.TarInfo(f'{number}.{ending}')
                entry.size = len(data)
                shard.addfile(entry, io.BytesIO(data))
    whole = (tmp_path / 'train.tar').read_bytes()
    (tmp_path / 'train.tar').write_bytes(whole[: len(whole) // 2])
    options = ('--data-dir', tmp_path, '--split', 'train.tar|3', '--skip-unreadable')
    assert run('wds/', tmp_path / 'masks', *options) == 1
    assert 'images failed' in capsys.readouterr().out


def test_check_leaves_unreadable_images_out_where_they_may_be(tmp_path, capsys):
    images, masks = write_images(tmp_path / 'images', ['a.png', 'b.png', 'c.png']), tmp_path / 'masks'
    (images / 'b.png').write_bytes(b'no image')
    (images / 'c.png').write_bytes((images / 'c.png').read_bytes()[:-40])
    assert run(images, masks, '--skip-unreadable') == 0
    assert run(images, masks, '--check') == 1
    assert run(images, masks, '--check', '--skip-unreadable') == 0
    (masks / 'a.png').unlink()
    assert run(images, masks, '--check', '--skip-unreadable') == 1
