"""Files that anybody may have made, damaged or hostile: a reader gives values or a UsageError, soon and in bounds."""

import contextlib
import copy
import io
import json
import logging
import resource
import struct
import time
import zlib

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tiny import loop_args, tiny_repaint, tiny_task
from timm_repaint.detection.annotations import annotation_path, read_coco
from timm_repaint.engine.checkpoint import SafeSaver, resume, resume_repaint
from timm_repaint.engine.fine_tune_phase import epochs_done
from timm_repaint.engine.output import trim_rows
from timm_repaint.engine.setup import Precision
from timm_repaint.errors import UsageError
from timm_repaint.masks.label_png import load_labels, save_labels
from timm_repaint.masks.manifest import MANIFEST_NAME, Manifest, claim_folder, read_manifest
from timm_repaint.options import build_config_parser, build_parser, parse_args
from timm_repaint.options.run_file import ARGS, read_args
from timm_repaint.report.summary import SUMMARY, UnfinishedError, read_last_row
from timm_repaint.saved import load_repainter

EXTRA_MEMORY = 2**30
SECONDS = 20.0  # of a machine that does other things too
FUZZ = settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def bounds():
    """Memory beyond a bound is refused, so what takes it ends with a MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open('/proc/self/statm') as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + EXTRA_MEMORY, before[1]))
    logging.disable()
    yield
    logging.disable(logging.NOTSET)
    resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def only_told():
    """Whatever is in the file, the reader ends well, or says in one line what is wrong."""
    start = time.monotonic()
    try:
        yield
    except (UsageError, UnfinishedError) as error:
        assert str(error) and 'weights_only' not in str(error)
    except SystemExit as stop:  # of a parser, which has told it
        assert stop.code == 2
    assert time.monotonic() - start < SECONDS


# Changes of files ----------------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.sampled_from([10**30, -1, 2**31, 2**63, float('nan'), float('inf'), '', '..', '/', '\x1b[2J', 'a\nb', '\ud800']),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def damaged(draw, content):
    """The bytes of a file with some changed, taken out, repeated, or only its beginning."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.sampled_from([1, 2, 4, 16]))
        how = draw(st.sampled_from(['change', 'take out', 'repeat', 'cut off', 'insert']))
        if how == 'change':
            data[start : start + length] = draw(st.binary(min_size=length, max_size=length))
        elif how == 'take out':
            del data[start : start + length]
        elif how == 'repeat':
            data[start:start] = data[start : start + length] * draw(st.sampled_from([1, 100]))
        elif how == 'insert':
            data[start:start] = draw(st.binary(max_size=length))
        else:
            del data[start:]
    return bytes(data)


@st.composite
def other_value(draw, tree, values=VALUES):
    """A tree of values with another one, or none, at one or two places."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 2))):
        parent, key = draw(st.sampled_from([*places({'': tree})]))
        if key == '':
            return draw(values)
        if draw(st.integers(0, 4)) == 0:
            del parent[key]
        else:
            parent[key] = draw(values)
    return tree


def places(tree):
    """Each place of a tree: what holds it, and its key."""
    if isinstance(tree, (dict, list)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield tree, key
            yield from places(value)


# Readers -------------------------------------------------------------------------------------------------------------


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


# Checkpoints ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A training checkpoint, small, and its bytes."""
    task, repaint = tiny_task(), tiny_repaint()
    content = {
        'epoch': 2, 'arch': 'test_resnet', 'version': 2, 'metric': 12.5,
        'state_dict': task.get_checkpoint_state()['state_dict'],
        'optimizer': torch.optim.SGD(task.parameters(), lr=0.1, momentum=0.9).state_dict(),
        'repaint': repaint.state_dict(),
        'saver': {
            'checkpoint_files': [('checkpoint-2.pth.tar', 12.5)], 'best_epoch': 2, 'best_metric': 12.5,
            'pending': (2, 12.5),
        },
    }  # fmt: skip
    path = tmp_path_factory.mktemp('checkpoint') / 'last.pth.tar'
    torch.save(content, path)
    return content, path.read_bytes()


def read_all_of(path):
    """Everybody who reads a checkpoint."""
    task = tiny_task()
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1, momentum=0.9)
    args = loop_args(no_resume_opt=False, model='test_resnet', model_ema=True, model_ema_decay=0.9)
    args.model_ema_warmup = args.model_ema_force_cpu = False
    precision = Precision(None, contextlib.nullcontext, None)
    saver = SafeSaver(task, optimizer, checkpoint_dir=str(path.parent))
    yield lambda: load_repainter(str(path))
    yield lambda: epochs_done(str(path))
    yield lambda: resume(task, str(path), optimizer, precision, args)
    yield lambda: resume_repaint(tiny_repaint(), str(path), args)
    yield lambda: saver.load_state_dict_from_checkpoint(str(path))


@settings(FUZZ, max_examples=10)
@given(data=st.data())
def test_damaged_checkpoints(data, checkpoint, tmp_path):
    path = tmp_path / 'last.pth.tar'
    path.write_bytes(data.draw(damaged(checkpoint[1])))
    for reader in read_all_of(path):
        with only_told():
            reader()


TENSORS = st.sampled_from(
    [torch.zeros(3), torch.tensor(float('nan')), torch.zeros(2, 2, dtype=torch.int8), torch.zeros(0)]
)


@settings(FUZZ, max_examples=12)
@given(data=st.data())
def test_checkpoints_of_other_values(data, checkpoint, tmp_path):
    path = tmp_path / 'last.pth.tar'
    torch.save(data.draw(other_value(checkpoint[0], SCALARS | TENSORS | st.lists(SCALARS, max_size=2))), path)
    for reader in read_all_of(path):
        with only_told():
            reader()


def test_a_checkpoint_cannot_name_files_elsewhere_for_deletion(tmp_path):
    run = tmp_path / 'run'
    run.mkdir()
    (tmp_path / 'mine.txt').touch()
    saver = SafeSaver(tiny_task(), None, checkpoint_dir=str(run), max_history=1)
    saver.load_state_dict({'checkpoint_files': [(str(tmp_path / 'mine.txt'), 1.0), ('../mine.txt', 2.0)]})
    assert saver.checkpoint_files == []
