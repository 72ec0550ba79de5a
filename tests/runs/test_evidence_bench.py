"""The bench as a command: real runs, what a second call repeats, what happens when one fails or all are stopped."""

import csv
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bench.evidence.__main__ import parse_args
from bench.evidence.arms import ARMS
from bench.evidence.bench import run_bench
from bench.evidence.data import RECIPES, Subset
from bench.evidence.plan import Place, plan_run
from bench.evidence.results import leave_result
from bench.runner import Processes, execute_all
from tests.helpers import REPO, copy_images, mtimes, run_script
from timm_repaint.errors import UsageError
from timm_repaint.report.summary import UnfinishedError

SUBSET = Subset('photos', 100, 10, RECIPES / '32px.yaml')
SMALL = ('--epochs', 2, '--img-size', 32, '--val-num-samples', 20, '--repaint-width', 4)
# A phase without training: it writes the row of its last epoch.
PHASE = """
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
(folder / 'summary.csv').write_text(f'epoch,train_loss,eval_loss,eval_top1\\n{int(sys.argv[2]) - 1},1,2,50\\n')
"""
FAILURE = (sys.executable, '-c', 'import sys; print("some words"); sys.exit("no such thing")')
SLEEP = (sys.executable, '-c', 'import time; time.sleep(600)')


def command_line(output, *options):
    return [str(word) for word in ('shapes', '--output', output, '--sizes', 40, '--seeds', 0, *options)]


def bench_here(output, *options):
    """The command in this process; its exit code."""
    return run_bench(*parse_args(command_line(output, *options, '--', *SMALL)))


# Whole runs ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """Both headline arms, one seed, 40 images, two epochs: the folder and what the command printed."""
    output = tmp_path_factory.mktemp('bench') / 'out'
    return output, run_script('-m bench.evidence', *command_line(output, '--', *SMALL))


@pytest.mark.slow
def test_the_command_ends_with_the_table_and_leaves_it_in_files(finished):
    output, done = finished
    assert '2 runs, 0 of them done before' in done.stdout
    assert 'runs: 100%' in done.stderr and '| 2/2 ' in done.stderr
    table = (output / 'table.md').read_text()
    assert table in done.stdout
    assert '| repaint ' in table and 'by shape after phase 1' in table and 'diversity' in table
    with open(output / 'results.csv', newline='') as file:
        plain, repaint = csv.DictReader(file)
    assert (plain['arm'], repaint['arm'], repaint['size']) == ('plain', 'repaint', '40')
    assert plain['diversity'] == '' and float(repaint['diversity']) > 0
    assert (output / 'plot.png').is_file() or "pip install '.[bench]'" in done.stderr


@pytest.mark.slow
def test_both_phases_are_in_the_runs_folder(finished):
    for arm in ('plain', 'repaint'):
        folder = finished[0] / 'runs' / 'shapes-40' / arm / 'seed-0'
        for phase in (folder, folder / 'fine_tune'):
            assert (phase / 'cue_conflict.json').is_file() and (phase / 'last.pth.tar').is_file()
        commands = [line for line in (folder / 'log.txt').read_text().splitlines() if line.startswith('$ ')]
        assert len(commands) == 2


@pytest.mark.slow
def test_a_second_call_repeats_no_run(finished, capsys):
    output, _ = finished
    before = mtimes(output / 'runs')
    assert bench_here(output) == 0
    assert '2 runs, 2 of them done before' in capsys.readouterr().out
    assert mtimes(output / 'runs') == before


@pytest.mark.slow
def test_a_call_with_other_options_is_refused(finished):
    with pytest.raises(
        UsageError, match=r'run with other options \(val_num_samples 20, now 30\); give another --output'
    ):
        run_bench(*parse_args(command_line(finished[0], '--', *SMALL, '--val-num-samples', 30)))


@pytest.mark.slow
def test_a_failure_is_listed_with_its_log_and_the_others_stay(finished, capsys):
    output, _ = finished
    assert bench_here(output, '--arm', 'odd=--model no_such_model') == 1
    out, err = capsys.readouterr()
    log = output / 'runs' / 'shapes-40' / 'odd' / 'seed-0' / 'log.txt'
    (line,) = [line for line in err.splitlines() if line.startswith('failed: ')]
    assert line.startswith('failed: shapes-40 odd, seed 0: exit code 1: ') and line.endswith(f'(log: {log})')
    assert 'no_such_model' in log.read_text()
    assert '| repaint ' in out


@pytest.mark.slow
def test_a_dry_run_prints_the_commands_that_are_left_and_writes_nothing(finished, capsys):
    output, _ = finished
    before = mtimes(output)
    assert bench_here(output, '--seeds', 0, 1, '--dry-run') == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line for line in lines if line.startswith('#')]
    assert names == ['# shapes-40 plain, seed 1', '# shapes-40 repaint, seed 1']
    scripts = [Path(shlex.split(line)[1]).name for line in lines if not line.startswith('#')]
    assert scripts == ['train.py', 'train.py', 'train.py', 'fine_tune.py']
    assert mtimes(output) == before


@pytest.mark.slow
def test_photographs_set_aside_for_choices_train_with_stored_masks(shared_data, tmp_path):
    data = copy_images(shared_data / 'cifar10', tmp_path / 'photos', 2, {'train': 140, 'validation': 1})
    options = ('--sizes', 40, '--seeds', 0, '--arms', 'repaint', '--dev', '--output', tmp_path / 'out')
    run_script('-m bench.evidence', data, *options, '--', *SMALL[:2], '--repaint-width', 4)
    assert len(list((tmp_path / 'out' / 'masks' / 'photos-dev-40').rglob('*.png'))) == 40
    with open(tmp_path / 'out' / 'results.csv', newline='') as file:
        (row,) = csv.DictReader(file)
    assert (row['data'], row['size']) == ('photos-dev', '40')
    assert float(row['top1']) * 2 == pytest.approx(round(float(row['top1']) * 2))  # of 200 images


def test_stopping_the_bench_ends_its_processes(tmp_path):
    command = [sys.executable, '-m', 'bench.evidence', 'shapes', '--output', str(tmp_path)]
    process = subprocess.Popen(command, cwd=REPO, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list(tmp_path.rglob('log.txt')):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 130
    assert 'interrupted; the same command goes on from here' in said
    assert 'Traceback' not in said
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nobody is left
    assert not list(tmp_path.rglob('result.json'))


# Order and failures of runs, with processes that do not train --------------------------------------------------------


def short_run(name, output, *commands):
    """A run of an arm; its own phases are replaced by others, or by ones that write their result at once."""
    run = plan_run(SUBSET, ARMS[name], 0, Place(output))
    phases = zip((run.folder, run.folder / 'fine_tune'), run.epochs, strict=True)
    own = tuple((sys.executable, '-c', PHASE, str(folder), str(epochs)) for folder, epochs in phases)
    return replace(run, commands=commands or own)


@pytest.mark.parametrize('jobs', [1, 2])
def test_a_run_waits_for_the_one_that_it_needs(tmp_path, jobs):
    names = ('repaint-frozen', 'repaint', 'plain')
    outcomes = list(execute_all([short_run(name, tmp_path) for name in names], jobs, leave_result))
    assert [problem for _, problem in outcomes] == [''] * 3
    order = [run.arm.name for run, _ in outcomes]
    assert order.index('repaint') < order.index('repaint-frozen')
    assert all((run.folder / 'result.json').is_file() for run, _ in outcomes)


def test_a_run_whose_forerunner_failed_is_not_started(tmp_path):
    runs = [
        short_run('repaint', tmp_path, FAILURE),
        short_run('repaint-frozen', tmp_path),
        short_run('plain', tmp_path),
    ]
    problems = {run.arm.name: problem for run, problem in execute_all(runs, 1, leave_result)}
    assert problems['repaint'] == 'exit code 1: no such thing'
    assert problems['repaint-frozen'].startswith('it needs ') and 'has not finished' in problems['repaint-frozen']
    assert problems['plain'] == ''
    assert not runs[1].folder.exists()


def test_a_run_that_stopped_early_starts_again_from_scratch(tmp_path):
    run = short_run('plain', tmp_path)
    (run.folder / 'fine_tune').mkdir(parents=True)
    (run.folder / 'fine_tune' / 'last.pth.tar').touch()
    assert [problem for _, problem in execute_all([run], 1, leave_result)] == ['']
    assert not (run.folder / 'fine_tune' / 'last.pth.tar').exists()


def test_a_phase_that_ends_too_early_is_a_failure(tmp_path):
    run = short_run('plain', tmp_path)
    first = (*run.commands[0][:-1], '7')
    ((_, problem),) = execute_all([replace(run, commands=(first, run.commands[1]))], 1, leave_result)
    assert problem.endswith(f'seed-0 ends after 7 of {run.epochs[0]} epochs')


def test_after_a_stop_no_process_is_left_and_none_starts(tmp_path):
    processes, codes = Processes(), []
    with open(tmp_path / 'log.txt', 'w') as log:
        thread = threading.Thread(target=lambda: codes.append(processes.call(SLEEP, log)))
        thread.start()
        while not processes.running:
            time.sleep(0.01)
        processes.stop()
        thread.join()
        assert codes == [-signal.SIGTERM]
        with pytest.raises(UnfinishedError):
            processes.call(SLEEP, log)


# The command line ----------------------------------------------------------------------------------------------------


def test_the_command_alone_is_the_headline():
    parsed, dry_run = parse_args(['photos', '--output', 'out'])
    assert (parsed.sizes, parsed.arms, parsed.seeds, parsed.jobs) == ([1000], ['headline'], [0, 1, 2], 2)
    assert (parsed.output, parsed.dev, parsed.extra, dry_run) == (Path('out'), False, [], False)


def test_what_follows_two_dashes_is_for_every_run():
    parsed, _ = parse_args(['a', 'b', '--output', 'out', '--seeds', '3', '3', '--', '--lr', '0.1', '--', 'x'])
    assert (parsed.data, parsed.seeds, parsed.extra) == (['a', 'b'], [3], ['--lr', '0.1', '--', 'x'])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['photos'], 'the following arguments are required: --output'),
        (['photos', '--output', 'out', '--jobs', '0'], 'argument --jobs: 0 is below 1'),
        (['photos', '--output', 'out', '--sizes', '-5'], 'argument --sizes: -5 is below 1'),
    ],
)
def test_a_command_line_that_does_not_fit_is_refused(options, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_args([*options])
    assert stop.value.code == 2
    assert capsys.readouterr().err.strip().endswith(message)


def test_data_sets_of_one_name_are_refused(shared_data, tmp_path):
    data = str(shared_data / 'cifar10')
    with pytest.raises(UsageError, match='cifar10-1000 is there twice; give each size once, and data folders of diff'):
        run_bench(*parse_args([data, data, '--output', str(tmp_path / 'out')]))
    assert not (tmp_path / 'out').exists()
