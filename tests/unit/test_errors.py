"""How a program ends: with its status, whoever listens; and with 130 after Ctrl-C."""

import os
import signal
import sys

from timm_repaint.errors import run_command


def status_of_child(function):
    """The exit status of a forked process that calls a function and closes as Python does."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            function()
        except SystemExit as stop:
            os._exit(stop.code if isinstance(stop.code, int) else 1)
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def without_a_reader(main):
    """Run a command whose output nobody reads any more."""

    def child():
        reader, writer = os.pipe()
        os.close(reader)
        for number in (1, 2):
            os.dup2(writer, number)
        sys.stdout, sys.stderr = (open(number, 'w', buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        try:
            run_command(main)
        finally:
            sys.stdout.flush()

    return status_of_child(child)


def talk(status):
    for stream in (sys.stdout, sys.stderr):
        for _ in range(3):
            print('words ' * 10_000, file=stream, flush=True)
    return status


def test_a_command_whose_reader_has_gone_ends_with_its_own_status():
    assert without_a_reader(lambda: talk(0)) == 0
    assert without_a_reader(lambda: talk(3)) == 3


def test_ctrl_c_ends_a_command_with_130():
    assert status_of_child(lambda: run_command(lambda: os.kill(os.getpid(), signal.SIGINT))) == 130


def test_ctrl_c_while_a_command_closes_ends_it_with_130():
    def child():
        try:
            run_command(lambda: 0)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    assert status_of_child(child) == 130
