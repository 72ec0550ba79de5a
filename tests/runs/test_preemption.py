"""Signals and kills: a run that a cluster ends goes on as if nothing had happened, and its files are always whole."""

import contextlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import train
from tests.helpers import (
    REPAINT,
    REPO,
    SCHEDULE,
    SHAPES,
    TINY,
    call_main,
    load_checkpoint,
    read_summary,
    run_script,
    same_tensors,
    train_here,
)
from tests.processes import start_training, status_of, wait_until
from timm_repaint.engine.checkpoint import SafeSaver
from timm_repaint.engine.preemption import (
    REQUEUE_STATUS,
    SAME_SIGNAL_SECONDS,
    PatientWorker,
    StopRequest,
    stop_request,
    stoppable,
)
from timm_repaint.errors import UsageError

pytestmark = pytest.mark.device('cpu')  # bit by bit, which a GPU's sums are not

OPTIONS = (*REPAINT, '--train-num-samples', 96, '--epochs', 4, '--repaint-epochs', 4, '--resume', 'auto')


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The undisturbed run, and the seconds that a process takes for it."""
    output = tmp_path_factory.mktemp('whole')
    start = time.monotonic()
    assert status_of(start_training(output, *OPTIONS)) == 0
    first = time.monotonic() - start  # the server of the processes starts with it
    shutil.rmtree(output / 'run')
    start = time.monotonic()
    assert status_of(start_training(output, *OPTIONS)) == 0
    return output / 'run', min(first, time.monotonic() - start)


def weights_of(run):
    checkpoint = load_checkpoint(run / 'last.pth.tar')
    return {key: checkpoint[key] for key in ('epoch', 'state_dict', 'optimizer', 'repaint')}


def assert_same(run, whole):
    assert same_tensors(weights_of(run), weights_of(whole))
    assert (run / 'summary.csv').read_bytes() == (whole / 'summary.csv').read_bytes()


def assert_readable(run):
    """Every checkpoint that has its name is whole."""
    paths = [path for path in run.glob('*.pth.tar') if 'tmp' not in path.name]
    for path in paths:
        load_checkpoint(path)


# Signals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_says_where_asks_for_a_requeue_and_the_run_goes_on_exactly(number, whole, tmp_path):
    process = start_training(tmp_path, *OPTIONS)
    wait_until((tmp_path / 'run' / 'last.pth.tar').is_file, process)
    os.kill(process.pid, number)
    assert status_of(process) == REQUEUE_STATUS == 75
    run = tmp_path / 'run'
    (recovery,) = run.glob('recovery-*.pth.tar')
    log = (tmp_path / 'log.txt').read_text()
    assert f'Saved {recovery}.' in log
    assert f'{signal.Signals(number).name}: stopped after update' in log and '--resume auto goes on from' in log
    assert 'Traceback' not in log and '--result' not in log
    assert_readable(run)
    assert status_of(start_training(tmp_path, *OPTIONS)) == 0
    assert_same(run, whole[0])


def test_a_signal_to_all_processes_of_the_job_does_not_kill_the_loaders_workers(tmp_path):
    """As a cluster sends it; and the launcher passes it on once more."""
    command = [sys.executable, 'train.py', *TINY, *SCHEDULE, *SHAPES, '--train-num-samples', '400', '--epochs', '50']
    log_path = tmp_path / 'log.txt'
    with open(log_path, 'w') as log:
        process = subprocess.Popen(
            [*command, '-j', '2', '--log-interval', '1', '--output', tmp_path, '--experiment', 'run'],
            cwd=REPO, env={**os.environ, 'OMP_NUM_THREADS': '1'}, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    while 'Train: 0 [4/' not in log_path.read_text():
        assert process.poll() is None, log_path.read_text()
        time.sleep(0.05)
    for _ in range(2):
        os.killpg(process.pid, signal.SIGTERM)
    assert process.wait() == REQUEUE_STATUS, log_path.read_text()
    assert 'Traceback' not in log_path.read_text()
    with pytest.raises(ProcessLookupError):  # no worker is left
        while True:
            os.killpg(process.pid, 0)
            time.sleep(0.1)


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_stops_both_at_one_update_and_they_go_on_exactly(tmp_path):
    launcher = '-m torch.distributed.run --standalone --nproc-per-node 2 train.py'
    args = (*TINY, *SCHEDULE, *OPTIONS, '--train-num-samples', 192, '--output', tmp_path)
    run_script(launcher, *args, '--experiment', 'whole')
    command = [sys.executable, *launcher.split(), *map(str, args), '--experiment', 'run']
    log_path = tmp_path / 'log.txt'
    with open(log_path, 'w') as log:
        environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
        launched = subprocess.Popen(command, cwd=REPO, env=environment, stdout=log, stderr=log)
    while not (tmp_path / 'run' / 'last.pth.tar').is_file():
        assert launched.poll() is None, log_path.read_text()
        time.sleep(0.05)
    children = Path(f'/proc/{launched.pid}/task/{launched.pid}/children').read_text().split()
    os.kill(int(children[-1]), signal.SIGUSR1)
    launched.wait()
    log_text = log_path.read_text()
    assert 'stopped after update' in log_text and f'exitcode  : {REQUEUE_STATUS}' in log_text, log_text
    assert len(list((tmp_path / 'run').glob('recovery-*'))) == 1
    run_script(launcher, *args, '--experiment', 'run')
    assert_same(tmp_path / 'run', tmp_path / 'whole')


def test_the_run_ends_in_order_if_the_signal_comes_after_its_last_update(tmp_path, monkeypatch):
    def look(watch, run, epoch, loss):
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

    monkeypatch.setattr('timm_repaint.engine.repaint_watch.RepaintWatch.look', look)
    run = train_here(tmp_path, *REPAINT, '--epochs', 1)
    assert len(read_summary(run)) == 1 and not list(run.glob('recovery-*'))


def test_the_handlers_of_before_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with stoppable():
        assert isinstance(stop_request(), StopRequest)
        assert signal.getsignal(signal.SIGUSR1) is signal.getsignal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before and stop_request() is None


def _signal_oneself(seconds):
    with stoppable():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(3)


@pytest.mark.parametrize(
    ('seconds', 'status'), [(SAME_SIGNAL_SECONDS + 0.2, -signal.SIGTERM), (0, 3)], ids=['later', 'passed on']
)
def test_a_second_signal_ends_the_process_at_once_unless_it_is_the_first_passed_on(seconds, status):
    process = multiprocessing.get_context('forkserver').Process(target=_signal_oneself, args=(seconds,))
    process.start()
    assert status_of(process) == status


def test_a_worker_follows_a_signal_only_when_the_main_process_closes():
    closing = multiprocessing.RawValue('b', 0)
    worker = PatientWorker(lambda worker_id: None, closing)
    worker._receive(signal.SIGTERM, None)
    pid = os.fork()
    if pid == 0:
        closing.value = 1
        worker._receive(signal.SIGTERM, None)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# Ctrl-C --------------------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_with_130_and_the_checkpoints_and_results_so_far(tmp_path):
    process = start_training(tmp_path, *OPTIONS)
    wait_until((tmp_path / 'run' / 'last.pth.tar').is_file, process)
    os.kill(process.pid, signal.SIGINT)
    assert status_of(process) == 130
    log = (tmp_path / 'log.txt').read_text()
    assert 'Interrupted.' in log and 'Stopped early' in log and 'Traceback' not in log
    assert_readable(tmp_path / 'run')


def lose(error):
    """What Python does with an error that a destructor raises."""
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise error from None


@pytest.mark.parametrize('moment', ['timm_repaint.engine.loop.to_device', 'timm_repaint.engine.run.mean_lr'])
@pytest.mark.parametrize('error', [None, RuntimeError('a worker exited')], ids=['lost', 'another error'])
def test_ctrl_c_ends_with_130_where_its_exception_is_lost(moment, error, tmp_path, monkeypatch):
    honest = getattr(sys.modules[moment.rpartition('.')[0]], moment.rpartition('.')[2])

    def interrupted(*args):
        with contextlib.nullcontext() if error else contextlib.suppress(TypeError):
            lose(error or TypeError())
        return honest(*args)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(moment, interrupted)
    try:
        status = call_main(train.main, *TINY, *SHAPES, '--epochs', 1, '--output', tmp_path, '--experiment', 'run')
    finally:
        assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    assert status == 130


# Kills and full disks ------------------------------------------------------------------------------------------------


def kill_and_resume(folder, moment, whole):
    """Kill a run `moment` seconds after its start, look at its files, and let it go on to the end."""
    process = start_training(folder, *OPTIONS)
    process.join(moment)
    process.kill()
    assert status_of(process) in (-signal.SIGKILL, 0)
    assert_readable(folder / 'run')
    assert status_of(start_training(folder, *OPTIONS)) == 0, (folder / 'log.txt').read_text()
    assert_same(folder / 'run', whole)


def moments(count, seconds):
    draw = random.Random(count)
    return [draw.uniform(0, seconds) for _ in range(count)]


def test_a_killed_run_goes_on_exactly(whole, tmp_path):
    for index, moment in enumerate(moments(3, whole[1])):
        kill_and_resume(tmp_path / str(index), moment, whole[0])


@pytest.mark.slow
def test_a_run_killed_at_twenty_random_moments_goes_on_exactly_each_time(whole, tmp_path):
    for index, moment in enumerate(moments(20, whole[1])):
        kill_and_resume(tmp_path / str(index), moment, whole[0])


def _train_on_a_small_disk(run, limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # a write beyond it fails as on a full disk
    try:
        train_here(run.parent, *OPTIONS, '--stop-epoch', 2)
    except UsageError as error:
        (run.parent / 'error.txt').write_text(str(error))


def test_a_full_disk_is_told_with_the_path_and_the_last_checkpoint_stays(tmp_path):
    run = train_here(tmp_path, *OPTIONS, '--stop-epoch', 1)
    before = weights_of(run)
    limit = (run / 'last.pth.tar').stat().st_size // 2
    process = multiprocessing.get_context('forkserver').Process(target=_train_on_a_small_disk, args=(run, limit))
    process.start()
    assert status_of(process) == 0
    message = (tmp_path / 'error.txt').read_text()
    assert message.startswith(f'cannot write the checkpoint {run}/tmp.pth.tar: File too large; the earlier ones')
    assert not (run / 'tmp.pth.tar').exists()
    assert same_tensors(weights_of(run), before)
    assert_readable(run)
    resumed = train_here(tmp_path, *OPTIONS, '--stop-epoch', 2)
    assert [row['epoch'] for row in read_summary(resumed)] == [0, 1]


def test_the_last_two_recovery_checkpoints_of_all_processes_are_kept(tmp_path):
    args = ('--epochs', 3, '--repaint-epochs', 3, '--resume', 'auto', '--recovery-interval', 1)
    for stop in (1, 2, 3):
        run = train_here(tmp_path, *REPAINT, *args, '--stop-epoch', stop)
        assert len(list(run.glob('recovery-*'))) == 2


def test_a_name_that_is_taken_gets_the_new_file(tmp_path):
    saver = SafeSaver(model=None, optimizer=None, checkpoint_dir=str(tmp_path))
    (tmp_path / 'last').write_text('new')
    (tmp_path / 'best').write_text('old')
    for _ in range(2):  # the second time both names are those of one file
        saver._duplicate(str(tmp_path / 'last'), str(tmp_path / 'best'))
        assert (tmp_path / 'best').read_text() == 'new'
        assert {path.name for path in tmp_path.iterdir()} == {'last', 'best'}
