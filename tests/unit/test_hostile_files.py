"""Files that anybody may have made, damaged or hostile: a reader gives values or a UsageError, soon and in bounds."""

import contextlib
import io
import json
import struct
import zlib

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile import FUZZ, bounds, damaged, only_told, other_value  # noqa: F401
from timm_repaint.detection.annotations import annotation_path, read_coco
from timm_repaint.engine.fine_tune_phase import epochs_done
from timm_repaint.engine.output import trim_rows
from timm_repaint.masks.label_png import load_labels, save_labels
from timm_repaint.masks.manifest import MANIFEST_NAME, Manifest, claim_folder, read_manifest
from timm_repaint.options import build_config_parser, build_parser, parse_args
from timm_repaint.options.run_file import ARGS, read_args
from timm_repaint.report.summary import SUMMARY, read_last_row
from timm_repaint.saved import load_repainter

pytestmark = pytest.mark.usefixtures('bounds')


def label_pngs():
    """One as we write it, one of 16 bits, one as others write it."""
    rng = np.random.default_rng(0)
    for highest in (20, 2000):
        yield rng.integers(0, highest, (9, 7))


@pytest.fixture(scope='module')
def pngs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pngs')
    for number, labels in enumerate(label_pngs()):
        save_labels(folder / f'{number}.png', labels)
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@FUZZ
@given(data=st.data())
def test_label_pngs(data, pngs, tmp_path):
    path = tmp_path / 'a.png'
    path.write_bytes(data.draw(damaged(data.draw(st.sampled_from(pngs)))))
    with only_told():
        assert load_labels(path).ndim == 2


def png(width, height, bits, colour, rows):
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    header = struct.pack('>IIBBBBB', width, height, bits, colour, 0, 0, 0)
    palette = chunk(b'PLTE', bytes(768)) if colour == 3 else b''
    body = chunk(b'IHDR', header) + palette + chunk(b'IDAT', rows) + chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + body


def zeros(count):
    """So many zero bytes, compressed, without ever holding them."""
    packer = zlib.compressobj(9)
    return b''.join([*(packer.compress(bytes(2**20)) for _ in range(count // 2**20)), packer.flush()])


@pytest.fixture(scope='module')
def endless():
    """Half a gigabyte in 500 kB."""
    return zeros(2**29)


@pytest.mark.parametrize('colour', [0, 3])
@pytest.mark.parametrize('size', [(10, 10), (2**31 - 1, 2**31 - 1), (50_000, 50_000), (0, 0)])
def test_a_label_png_takes_no_more_memory_than_its_size_asks_for(colour, size, endless, tmp_path):
    path = tmp_path / 'a.png'
    path.write_bytes(png(*size, 8, colour, endless))
    with only_told():
        assert load_labels(path).shape == (10, 10)


MANIFEST = {
    'source': 'fh', 'kind': 'segment', 'num_labels': None, 'size_px': 256, 'parameters': {'scale': 8.0},
    'timm_repaint': '0.2', 'format': 1,
}  # fmt: skip


@FUZZ
@given(data=st.data())
def test_manifests(data, tmp_path):
    text = json.dumps(data.draw(other_value(MANIFEST))).encode()
    (tmp_path / MANIFEST_NAME).write_bytes(data.draw(st.just(text) | damaged(json.dumps(MANIFEST).encode())))
    with only_told():
        claim_folder(tmp_path, Manifest('fh', 'segment', None, 256, {'scale': 8.0}))
        assert isinstance(read_manifest(tmp_path), Manifest)


COCO = {
    'images': [
        {'id': 1, 'file_name': 'a.jpg', 'height': 30, 'width': 40},
        {'id': 2, 'file_name': 'b/c.jpg', 'height': 3, 'width': 4},
    ],
    'annotations': [
        {'id': 7, 'image_id': 1, 'category_id': 3, 'bbox': [1, 2, 3.5, 4], 'area': 12.0, 'iscrowd': 0},
        {'id': 8, 'image_id': 2, 'category_id': 90, 'bbox': [0, 0, 4, 3], 'iscrowd': 1},
    ],
    'categories': [{'id': 3, 'name': 'cat'}, {'id': 90, 'name': 'dog'}],
}  # fmt: skip


@FUZZ
@given(data=st.data())
def test_coco_files(data, tmp_path):
    path = annotation_path(str(tmp_path), 'train')
    (tmp_path / 'annotations').mkdir(exist_ok=True)
    text = json.dumps(data.draw(other_value(COCO))).encode()
    with open(path, 'wb') as file:
        file.write(data.draw(st.just(text) | damaged(json.dumps(COCO).encode())))
    read_coco.cache_clear()
    with only_told():
        annotations = read_coco(str(tmp_path), 'train')
        assert all(len(annotations.objects(index)) == 2 for index in range(len(annotations)))
        annotations.to_coco()


NESTED = b'[' * 100_000


@pytest.mark.parametrize('name', [MANIFEST_NAME, 'annotations/instances_train.json', ARGS, SUMMARY, 'last.pth.tar'])
@pytest.mark.parametrize('content', [b'', b'\0' * 100, NESTED, b'{"a":' * 100_000, b'"' + b'a' * 10**7, b'\xff\xfe'])
def test_extremes(name, content, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    read_coco.cache_clear()
    for reader in (
        lambda: read_manifest(tmp_path),
        lambda: read_coco(str(tmp_path), 'train'),
        lambda: read_args(tmp_path),
        lambda: options_of(tmp_path / ARGS),
        lambda: read_last_row(tmp_path, 3),
        lambda: trim_rows(tmp_path / SUMMARY, 1),
        lambda: load_repainter(str(tmp_path / 'last.pth.tar')),
        lambda: epochs_done(str(tmp_path / 'last.pth.tar')),
    ):
        with only_told(), contextlib.redirect_stderr(io.StringIO()):
            reader()


def options_of(path):
    return parse_args(build_parser(), build_config_parser(), ['-c', str(path)])


YAML = {
    'repaint': True, 'lr': 0.1, 'epochs': 3, 'input_size': [3, 32, 32], 'opt_kwargs': {'a': 1}, 'model': 'resnet18',
    'repaint_prob': 0.5, 'base': [], 'mean': [0.5, 0.5, 0.5], 'repaint_split_bn': False,
}  # fmt: skip


@settings(FUZZ, max_examples=20)
@given(data=st.data())
def test_files_of_options(data, tmp_path):
    text = data.draw(
        other_value(YAML).map(lambda tree: yaml.safe_dump(tree).encode()) | damaged(yaml.safe_dump(YAML).encode())
    )
    (tmp_path / ARGS).write_bytes(text)
    with only_told():
        assert isinstance(read_args(tmp_path), dict)
    with only_told(), contextlib.redirect_stderr(io.StringIO()) as said:
        options_of(tmp_path / ARGS)
    assert 'Traceback' not in said.getvalue()


def test_a_bomb_of_yaml_is_refused_or_read_in_bounds(tmp_path):
    lines = ['a0: &a0 [x, x]', *(f'a{n}: &a{n} [{", ".join([f"*a{n - 1}"] * 9)}]' for n in range(1, 12))]
    (tmp_path / ARGS).write_text('\n'.join(lines))
    with only_told(), contextlib.redirect_stderr(io.StringIO()):
        read_args(tmp_path)
    with only_told(), contextlib.redirect_stderr(io.StringIO()):
        options_of(tmp_path / ARGS)


ROWS = (
    b'epoch,train_loss,eval_loss,eval_top1,lr\r\n0,2.5,2.4,12.5,0.1\r\n1,2.1,2.2,25.0,0.05\r\n2,2.0,nan,25.0,0.01\r\n'
)


@FUZZ
@given(data=st.data())
def test_summaries(data, tmp_path):
    path = tmp_path / SUMMARY
    path.write_bytes(data.draw(damaged(ROWS) | st.binary(max_size=50)))
    with only_told():
        assert isinstance(read_last_row(tmp_path, 3), dict)
    with only_told():
        trim_rows(path, 2)
