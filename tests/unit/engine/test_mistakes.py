"""What a run refuses at its start, and what torch's errors become."""

import argparse
import os

import pytest
import torch

from timm_repaint.engine.checkpoint import check_same_optimizer
from timm_repaint.engine.mistakes import check_processes, check_start, check_writable, explained
from timm_repaint.errors import UsageError

PARTS = ('WORLD_SIZE', 'SLURM_NTASKS', 'SLURM_PROCID', 'RANK', 'MASTER_ADDR', 'MASTER_PORT')


@pytest.fixture
def environment(monkeypatch):
    def put(**values):
        for name in PARTS:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'SLURM_NTASKS': '4'}, 'SLURM_NTASKS=4 in the environment promises several processes, but RANK, WORLD_SIZE'),
        ({'SLURM_NTASKS': '4', 'SLURM_PROCID': '0'}, 'but MASTER_ADDR, MASTER_PORT are not set: start them with srun'),
        ({'WORLD_SIZE': '2'}, 'for one process: env -u WORLD_SIZE python'),
        ({'WORLD_SIZE': '2', 'RANK': '0', 'MASTER_ADDR': 'here'}, 'but MASTER_PORT is not set'),
        ({'WORLD_SIZE': 'two'}, "WORLD_SIZE in the environment is 'two'; it has to be a number"),
    ],
)
def test_an_environment_of_processes_that_cannot_meet_is_refused(values, message, environment):
    environment(**values)
    with pytest.raises(UsageError, match=message):
        check_processes()


@pytest.mark.parametrize(
    'values',
    [{}, {'SLURM_NTASKS': '1'}, {'WORLD_SIZE': '2', 'RANK': '0', 'MASTER_ADDR': 'here', 'MASTER_PORT': '1'}],
)
def test_one_process_and_those_that_torchrun_starts_pass(values, environment):
    environment(**values)
    check_processes()


def test_a_place_where_no_folder_can_be_made_is_refused(tmp_path):
    check_writable(str(tmp_path / 'new/deep'))
    assert not (tmp_path / 'new').exists()
    (tmp_path / 'file').touch()
    with pytest.raises(UsageError, match=r'--output: cannot write to .*file/run: .*file is no folder'):
        check_writable(str(tmp_path / 'file/run'))
    (tmp_path / 'link').symlink_to(tmp_path / 'gone')
    with pytest.raises(UsageError, match='link is no folder'):
        check_writable(str(tmp_path / 'link/run'))


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match='no permission in'):
        check_writable(str(tmp_path / 'run'))
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ('option', 'module', 'message'),
    [
        ('log_wandb', 'wandb', '--log-wandb needs Weights & Biases: pip install wandb'),
        ('log_tensorboard', 'torch.utils.tensorboard', '--log-tensorboard needs TensorBoard: pip install tensorboard'),
    ],
)
def test_a_logger_without_its_package_is_refused_at_the_start(option, module, message, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__('sys').modules, module, None)
    options = {'log_wandb': False, 'log_tensorboard': False, 'wandb_resume_id': '', 'resume': '', option: True}
    with pytest.raises(UsageError, match=message):
        check_start(argparse.Namespace(**options), str(tmp_path))


@pytest.mark.parametrize(
    ('error', 'message'),
    [
        (RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed.'), 'signal: Killed: a process that'),
        (torch.OutOfMemoryError('CUDA'), 'give a smaller --batch-size'),
        (ValueError('Expected more than 1 value per channel when training, got'), 'a --batch-size of 2 or more'),
        (RuntimeError('[pair.cc:545] Read error [::1]:1: Connection reset by peer.'), 'another process of the run has'),
        (OSError(24, 'Too many open files'), 'raise ulimit -n'),
    ],
)
def test_errors_that_a_user_can_mend_become_a_line(error, message):
    with pytest.raises(UsageError, match=message) as told, explained():
        raise error
    assert '\n' not in str(told.value)


def test_an_error_in_a_worker_is_no_lack_of_memory():
    with pytest.raises(ValueError, match='bad image') as told, explained():
        raise ValueError('Caught ValueError in DataLoader worker process 0.\nOriginal Traceback ...\nbad image')
    assert not isinstance(told.value, UsageError)


def test_other_errors_stay_as_they_are():
    for error in (RuntimeError('a bug'), UsageError('out of memory'), KeyError('x')):
        with pytest.raises(type(error)) as told, explained():
            raise error
        assert told.value is error


def test_the_state_of_another_optimizer_is_refused_with_the_way_out():
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    sgd, adam, adamw = (kind(weights, lr=0.1) for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW))
    check_same_optimizer('old.pth', adam, adamw.state_dict())
    for other, message in (
        (sgd.state_dict(), 'it is of another --opt'),
        (torch.optim.Adam([{'params': [one]} for one in weights]).state_dict(), '1 groups of parameters, the one in'),
        ({}, 'old.pth holds no state of an optimizer'),
        ([], 'old.pth holds no state of an optimizer'),
    ):
        with pytest.raises(UsageError, match=message) as told:
            check_same_optimizer('old.pth', adam, other)
        assert '--no-resume-opt' in str(told.value)
