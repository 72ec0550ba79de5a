"""One run a folder: a second one is told, a dead one leaves no lock, on disks without locks too."""

import fcntl
import json
import os
import signal
import time

import pytest

from timm_repaint.engine import folder_lock
from timm_repaint.engine.folder_lock import NAME, RunFolder, this_process
from timm_repaint.errors import UsageError


@pytest.fixture
def taken_by_a_child(tmp_path):
    """A process that has the folder's lock; its id."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        lock = RunFolder(tmp_path)
        lock.take()
        os.write(writer, b'x')
        time.sleep(60)
        os._exit(0)
    os.read(reader, 1)
    yield pid
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.fixture(params=['kernel', 'heartbeats'])
def disk(request, monkeypatch):
    """A disk whose locks work, and one that has none."""
    if request.param == 'heartbeats':
        monkeypatch.setattr(folder_lock, 'lock_by_kernel', lambda file: None)


def test_a_second_process_is_told_who_has_the_folder(disk, taken_by_a_child, tmp_path):
    with pytest.raises(
        UsageError, match=rf'{tmp_path} is in use by another run \(process {taken_by_a_child} on .*since'
    ):
        RunFolder(tmp_path).take()


def test_a_killed_process_leaves_no_lock(disk, taken_by_a_child, tmp_path):
    kill(taken_by_a_child)
    assert (tmp_path / NAME).exists()
    start = time.monotonic()
    lock = RunFolder(tmp_path)
    lock.take()
    assert lock.held and time.monotonic() - start < 1
    lock.release()
    assert not list(tmp_path.iterdir())


def test_a_process_of_the_same_number_is_another_one(disk, tmp_path):
    (tmp_path / NAME).write_text(json.dumps({**this_process(), 'started': '1'}))
    RunFolder(tmp_path).take()


def test_one_process_takes_it_once(disk, tmp_path):
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.take()
    with pytest.raises(UsageError, match='in use'):
        second.take()
    assert first.held and not second.held


@pytest.mark.parametrize('alive', [True, False])
def test_a_process_of_another_machine_is_dead_without_a_heartbeat(alive, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, 'BEAT_SECONDS', 0.2)
    other, own = RunFolder(tmp_path), RunFolder(tmp_path)
    monkeypatch.setattr(folder_lock.socket, 'gethostname', lambda: 'elsewhere')
    other.take()
    monkeypatch.undo()
    monkeypatch.setattr(folder_lock, 'BEAT_SECONDS', 0.2)
    if alive:
        with pytest.raises(UsageError, match='on elsewhere'):
            own.take()
    else:
        other._over.set()
        other._beat.join()
        own.take()
        assert own.held and not other.path.read_text().count('elsewhere')
    other.release()


@pytest.mark.parametrize('content', ['', 'no json', '[]', '{"host": 1}', '{"host": null, "pid": "x"}'])
def test_a_lock_that_says_nothing_is_taken(content, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, 'BEAT_SECONDS', 0.01)
    (tmp_path / NAME).write_text(content)
    RunFolder(tmp_path).take()


def test_a_removed_folder_is_noticed_and_another_runs_lock_is_left_alone(tmp_path):
    folder = tmp_path / 'run'
    folder.mkdir()
    lock = RunFolder(folder)
    lock.take()
    (folder / NAME).unlink()
    assert not lock.held
    other = RunFolder(folder)
    other.take()
    lock.release()
    assert other.held


def test_a_folder_that_cannot_be_written_is_told_with_the_reason(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UsageError, match='Not a directory; give another --output'):
        RunFolder(tmp_path / 'file' / 'run').take()


def test_the_kernels_lock_is_one(taken_by_a_child, tmp_path):
    with open(tmp_path / NAME, 'r+') as file, pytest.raises(BlockingIOError):
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
