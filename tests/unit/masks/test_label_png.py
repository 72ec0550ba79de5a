import resource
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from timm_repaint.errors import UsageError
from timm_repaint.masks.label_png import digest, image_comment, load_labels, read_note, save_labels


def bits(path) -> int:
    return path.read_bytes()[24]  # the header's bit depth


@pytest.mark.parametrize(('highest', 'expected_bits'), [(0, 8), (1, 8), (15, 8), (255, 8), (256, 16), (65535, 16)])
def test_labels_come_back_as_they_were_in_8_bits_or_in_16(tmp_path, highest, expected_bits):
    labels = np.random.default_rng(0).integers(0, highest + 1, (19, 31))
    labels[4, 7] = highest
    save_labels(tmp_path / 'deep' / 'a.png', labels)
    assert bits(tmp_path / 'deep' / 'a.png') == expected_bits
    loaded = load_labels(tmp_path / 'deep' / 'a.png')
    assert loaded.dtype == (np.uint8 if expected_bits == 8 else np.uint16)
    np.testing.assert_array_equal(loaded, labels)
    assert [path.name for path in (tmp_path / 'deep').iterdir()] == ['a.png']


def test_a_palette_map_gives_indices_not_colours(tmp_path):
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8))
    picture.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    picture.save(tmp_path / 'a.png')
    np.testing.assert_array_equal(load_labels(tmp_path / 'a.png'), [[0, 1], [2, 1]])


@pytest.mark.parametrize(('depth', 'highest'), [(1, 1), (2, 3), (4, 15), (8, 255)])
def test_grey_maps_of_few_bits_give_the_stored_values(tmp_path, depth, highest):
    labels = (np.arange(16).reshape(4, 4) % (highest + 1)).astype(np.uint8)
    write_grey(tmp_path / 'a.png', labels, depth)
    assert bits(tmp_path / 'a.png') == depth
    np.testing.assert_array_equal(load_labels(tmp_path / 'a.png'), labels)


def write_grey(path, labels, depth):
    """A grey PNG by hand: Pillow does not write all depths."""

    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    as_bits = np.unpackbits(labels[..., None], axis=-1)[..., 8 - depth :].reshape(len(labels), -1)
    rows = b''.join(b'\0' + np.packbits(row).tobytes() for row in as_bits)
    header = struct.pack('>IIBBBBB', labels.shape[1], labels.shape[0], depth, 0, 0, 0, 0)
    path.write_bytes(
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')
    )


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'LA'])
def test_a_picture_of_several_channels_is_no_label_map(tmp_path, mode):
    Image.new(mode, (4, 4)).save(tmp_path / 'a.png')
    with pytest.raises(UsageError, match=rf'a\.png is not a label map: it has {mode} pixels, one channel expected'):
        load_labels(tmp_path / 'a.png')


def test_missing_damaged_and_foreign_files_are_named(tmp_path):
    with pytest.raises(UsageError, match=r'mask .*gone\.png does not exist'):
        load_labels(tmp_path / 'gone.png')
    save_labels(tmp_path / 'a.png', np.random.default_rng(0).integers(0, 99, (50, 50)))
    whole = (tmp_path / 'a.png').read_bytes()
    for name, content in {'short': whole[:300], 'empty': b'', 'text': b'hello', 'header': whole[:20]}.items():
        (tmp_path / f'{name}.png').write_bytes(content)
        with pytest.raises(UsageError, match=rf'mask .*{name}\.png cannot be read'):
            load_labels(tmp_path / f'{name}.png')
    Image.new('L', (8, 8)).save(tmp_path / 'jpeg.png', 'JPEG')
    with pytest.raises(UsageError, match=r'jpeg\.png cannot be read'):
        load_labels(tmp_path / 'jpeg.png')


def chunk(kind, content):
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))


def png(width, height, data):
    """A palette picture of bytes as `save_labels` makes it, with rows of one's own."""
    header = struct.pack('>II5B', width, height, 8, 3, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'PLTE', b'\0' * 3) + chunk(b'IDAT', data)


def test_data_that_grow_without_end_are_read_no_further_than_the_picture(tmp_path):
    packer = zlib.compressobj(9)
    rows = b''.join(packer.compress(bytes(2**20)) for _ in range(200)) + packer.flush()
    (tmp_path / 'a.png').write_bytes(png(4, 3, rows))
    tracemalloc.start()
    labels = load_labels(tmp_path / 'a.png')
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert labels.tolist() == [[0] * 4] * 3
    assert peak < 2**22, f'{peak} bytes for 12 pixels'


def test_a_picture_that_says_it_is_huge_is_refused_at_once(tmp_path):
    for size in (2**31 - 1, 60_000):
        (tmp_path / 'a.png').write_bytes(png(size, size, zlib.compress(b'\0' * 99)))
        with pytest.raises(UsageError, match=r'a\.png cannot be read: Image size \(\d+ pixels\) exceeds'):
            load_labels(tmp_path / 'a.png')


def test_a_note_is_kept_in_the_file(tmp_path):
    for highest in (3, 60_000):
        labels = np.arange(4).reshape(2, 2) * highest // 3
        save_labels(tmp_path / 'a.png', labels, note='0123abcd')
        assert read_note(tmp_path / 'a.png') == '0123abcd'
        assert np.array_equal(load_labels(tmp_path / 'a.png'), labels)
        save_labels(tmp_path / 'a.png', labels)
        assert read_note(tmp_path / 'a.png') is None


def test_a_full_disk_is_named_and_leaves_the_old_mask_and_no_half_file(tmp_path):
    save_labels(tmp_path / 'a.png', np.zeros((4, 4), int))
    noise = np.random.default_rng(0).integers(0, 65536, (200, 200))
    old_limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old_limits[1]))
    try:
        with pytest.raises(UsageError, match=r'cannot write .*a\.png: File too large'):
            save_labels(tmp_path / 'a.png', noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limits)
    np.testing.assert_array_equal(load_labels(tmp_path / 'a.png'), np.zeros((4, 4)))
    assert [path.name for path in tmp_path.iterdir()] == ['a.png']


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(UsageError, match=r'cannot write .*file/cat/a\.png: Not a directory'):
        save_labels(tmp_path / 'file' / 'cat' / 'a.png', np.zeros((2, 2), int))


def test_a_note_is_read_to_its_end_whatever_follows_it(tmp_path):
    notes = [digest(bytes([number])) for number in range(100)]
    picture = Image.new('RGB', (8, 8))
    for note in notes:  # the next byte is of a checksum, or of JPEG's tables
        save_labels(tmp_path / 'labels.png', np.zeros((8, 8), np.uint8), note)
        picture.save(tmp_path / 'picture.jpg', comment=image_comment(note))
        assert read_note(tmp_path / 'labels.png') == read_note(tmp_path / 'picture.jpg') == note
