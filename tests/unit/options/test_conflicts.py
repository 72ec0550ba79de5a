import logging

import pytest

from timm_repaint.options import build_config_parser, build_parser, check_options, parse_args
from timm_repaint.options.conflicts import parse_schedule, resolve_repaint_epochs, resolve_stop_epoch


def check(*argv):
    parser = build_parser()
    check_options(parser, parser.parse_args(argv))


def assert_stops(capsys, argv, *parts):
    """The command line must stop with status 2 and a message that has all the parts."""
    with pytest.raises(SystemExit) as stop:
        check(*argv)
    message = capsys.readouterr().err.split('error: ')[1]
    assert stop.value.code == 2
    for part in parts:
        assert part in message


REFUSED = [
    # phases and schedule
    ('--repaint-epochs 0', '--repaint-epochs is 0', 'from 1 to --epochs 300'),
    ('--epochs 4 --repaint-epochs 5', '--repaint-epochs is 5', 'from 1 to --epochs 4'),
    ('--repaint-schedule 2', "--repaint-schedule: the schedule is '2'", "such as '2:1'"),
    ('--repaint-schedule 0:1', "the schedule is '0:1'", 'two positive integers'),
    ('--repaint-schedule 2:1:1', "the schedule is '2:1:1'", 'two positive integers'),
    # ranges
    ('--repaint-prob 0', '--repaint-prob is 0.0', 'above 0 and at most 1'),
    ('--repaint-prob 1.5', '--repaint-prob is 1.5', 'above 0 and at most 1'),
    ('--repaint-task-weight -1', '--repaint-task-weight is -1.0', '0 or more'),
    ('--repaint-feat-weight -1', '--repaint-feat-weight is -1.0', '0 or more'),
    ('--repaint-kl-weight -0.1', '--repaint-kl-weight is -0.1', '0 or more'),
    ('--repaint-segment-kl-weight nan', '--repaint-segment-kl-weight is nan', '0 or more'),
    ('--repaint-kl-weight inf', '--repaint-kl-weight is inf', '0 or more'),
    ('--repaint-g-lr 0', '--repaint-g-lr is 0.0', 'freeze it'),
    ('--repaint-d-lr -1', '--repaint-d-lr is -1.0', 'freeze the generator'),
    ('--repaint-width 0', '--repaint-width is 0', '1 or more'),
    ('--repaint-latent-dim 0', '--repaint-latent-dim is 0', '1 or more'),
    ('--repaint-gallery-interval -1', '--repaint-gallery-interval is -1', '0 or more'),
    ('--repaint-max-nonfinite 0', '--repaint-max-nonfinite is 0', '1 or more'),
    ('--fh-scale 0', '--fh-scale is 0.0', 'above 0'),
    ('--fh-sigma -1', '--fh-sigma is -1.0', '0 or more'),
    ('--fh-min-size 0', '--fh-min-size is 0', '1 or more'),
    # what the generator needs
    ('--repaint-freeze', '--repaint-freeze needs a checkpoint', 'never learned'),
    ('--repaint-checkpoint /none/last.pth.tar', '--repaint-checkpoint', '/none/last.pth.tar'),
    ('--repaint-generator jitter --repaint-detail swap', "--repaint-generator 'jitter'", "use 'shift'"),
    ('--mask outlines --data-dir photographs', '--mask outlines is for --dataset shapes'),
    ('--mask outlines --dataset shapes --mask-dir masks', '--mask outlines reads no files', 'leave out --mask-dir'),
    # timm's options that cannot keep their meaning
    ('--naflex-loader', '--naflex-loader', 'patch sequences'),
    ('--aug-splits 3', '--aug-splits', 'leave out'),
    ('--jsd-loss', '--jsd-loss', 'leave it out'),
    ('--split-bn', '--repaint does not take --aug-splits, which --split-bn is for', 'leave it out'),
    ('--torchscript', '--torchscript', 'use --torchcompile'),
    ('--opt adahessian', '--opt adahessian', 'second derivatives'),
    ('--opt lookahead_adahessian', '--opt lookahead_adahessian', 'second derivatives'),
    ('--in-chans 1', '--in-chans is 1', 'RGB'),
    ('--input-size 1 64 64', '--input-size has 1 channels', 'RGB'),
    ('--input-img-mode L', '--input-img-mode is L', 'RGB'),
    ('--img-size 28', '--img-size has 28', '32 px or more'),
    ('--input-size 3 64 31', '--input-size has 31', '32 px or more'),
    ('--train-img-sizes 64 16', '--train-img-sizes has 16', '32 px or more'),
    ('--repaint-consistency 4', '--repaint-consistency compares', "needs 'both'"),
    ('--repaint-mix both --repaint-consistency 4 --cutmix 1', '--repaint-consistency', '--cutmix mix with others'),
    ('--mixup 0.2 --mixup-mode half', '--mixup-mode is half', 'batch, pair, elem'),
]


@pytest.mark.parametrize('case', REFUSED, ids=[case[0] for case in REFUSED])
def test_repaint_refuses_with_the_reason_and_the_way_out(capsys, case):
    argv, *parts = case
    assert_stops(capsys, ['--repaint', *argv.split()], *parts)


ODD = [
    ('--mixup 0.2 -b 7', '--batch-size has 7'),
    ('--cutmix 1 -b 7 --repaint-mix both', '--batch-size has 7'),
    ('--cutmix-minmax 0.2 0.8 -b 9', '--batch-size has 9'),
    ('--mixup 0.2 --train-img-sizes 32 64 --train-batch-sizes 8 5', '--train-batch-sizes has 5'),
]


@pytest.mark.parametrize('method', ['--repaint', '--hflip 0.5'])
@pytest.mark.parametrize(('argv', 'part'), ODD)
def test_odd_batches_are_not_mixed_with_or_without_repaint(capsys, argv, part, method):
    assert_stops(capsys, [*method.split(), *argv.split()], part, 'make it even')


@pytest.mark.parametrize('flag', ['--clip-mode', '--dist-bn', '--lr-base-scale', '--worker-seeding'])
def test_a_word_that_timm_would_take_for_another_is_refused(capsys, flag):
    assert_stops(capsys, [flag, 'nonsense'], f"{flag} is 'nonsense'; choose one of")


@pytest.mark.parametrize('argv', [case[0] for case in REFUSED])
def test_without_repaint_nothing_of_this_stops(argv):
    check(*argv.split())


@pytest.mark.parametrize(
    'argv',
    [
        '',
        '--epochs 4 --repaint-epochs 4 --repaint-schedule 3:2',
        '--repaint-prob 1 --repaint-mix both',
        '--repaint-prob 0.9',
        '--repaint-task-weight 0 --repaint-gallery-interval 0 --fh-sigma 0 --fh-scale 0.5 --fh-min-size 1',
        '--in-chans 3 --input-size 3 32 40 --input-img-mode RGB',
        '--mixup 0.2 --mixup-mode elem -b 6',
        '-b 7',
        '--opt lookahead_adamw --img-size 32 --train-img-sizes 32 64',
        '--opt no-such-optimizer',
    ],
)
def test_repaint_takes_what_keeps_its_meaning(caplog, argv):
    with caplog.at_level(logging.WARNING):
        check('--repaint', *argv.split())
    assert not caplog.records


def test_freeze_is_taken_with_a_checkpoint(tmp_path):
    path = tmp_path / 'last.pth.tar'
    path.write_bytes(b'')
    check('--repaint', '--repaint-freeze', '--repaint-checkpoint', str(path))


@pytest.mark.parametrize('switch', [[], ['--repaint']])
def test_cue_conflict_needs_the_shapes_data_set(capsys, switch):
    assert_stops(capsys, [*switch, '--cue-conflict'], '--cue-conflict needs --dataset shapes')
    assert_stops(capsys, [*switch, '--cue-conflict', '--dataset', 'torch/cifar10'], "got --dataset 'torch/cifar10'")
    check(*switch, '--cue-conflict', '--dataset', 'shapes')


def test_repaint_options_without_repaint_are_named_in_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        check('--repaint-prob', '1', '--repaint-width', '8', '--fh-scale', '20', '--lr', '0.1')
    assert [record.getMessage() for record in caplog.records] == [
        'without --repaint these options do nothing: --fh-scale, --repaint-prob, --repaint-width'
    ]


def test_timm_options_without_repaint_give_no_warning(caplog):
    with caplog.at_level(logging.WARNING):
        check('--lr', '0.1', '--repaint-prob', '0.5')
    assert not caplog.records


def test_checking_leaves_the_options_as_they_are():
    parser = build_parser()
    args = parser.parse_args(['--repaint'])
    before = dict(vars(args))
    check_options(parser, args)
    assert vars(args) == before


def test_schedule_reads_two_positive_integers():
    assert parse_schedule('2:1') == (2, 1)
    assert parse_schedule(' 10 : 3 ') == (10, 3)


@pytest.mark.parametrize('text', ['', '2', ':', '2:', ':1', '2:0', '-2:1', '2.0:1', '2:1:', 'a:b', '2/1'])
def test_other_schedules_are_refused(text):
    with pytest.raises(ValueError, match=r"two positive integers such as '2:1'"):
        parse_schedule(text)


@pytest.mark.parametrize(
    ('epochs', 'repaint_epochs'), [(200, 150), (100, 75), (10, 7), (6, 4), (5, 4), (4, 3), (3, 2), (2, 1), (1, 1)]
)
def test_three_quarters_of_the_epochs_are_repainted(epochs, repaint_epochs):
    assert resolve_repaint_epochs(build_parser().parse_args(['--epochs', str(epochs)])) == repaint_epochs


def test_the_number_of_repaint_epochs_can_be_given():
    assert resolve_repaint_epochs(build_parser().parse_args(['--epochs', '8', '--repaint-epochs', '8'])) == 8


def test_stop_epoch_is_the_last_of_all_epochs_unless_given():
    assert resolve_stop_epoch(None, 12) == 12
    assert resolve_stop_epoch(1, 12) == 1
    assert resolve_stop_epoch(12, 12) == 12


@pytest.mark.parametrize('stop_epoch', [-1, 0, 13])
def test_stop_epoch_out_of_range_is_an_error_that_names_it(stop_epoch):
    with pytest.raises(ValueError, match=f'stop-epoch is {stop_epoch}, but must be from 1 to 12'):
        resolve_stop_epoch(stop_epoch, 12)


def test_repaint_values_of_a_yaml_file_without_repaint_are_named_too(caplog, tmp_path):
    path = tmp_path / 'recipe.yaml'
    path.write_text('repaint_latent: global\nrepaint_width: 16\n')
    parser = build_parser()
    args, _ = parse_args(parser, build_config_parser(), ['-c', str(path)])
    with caplog.at_level(logging.WARNING):
        check_options(parser, args)
    assert [record.getMessage() for record in caplog.records] == [
        'without --repaint these options do nothing: --repaint-latent'
    ]


def test_an_unquoted_schedule_in_a_yaml_file_is_told_of_the_quotes(capsys, tmp_path):
    path = tmp_path / 'recipe.yaml'
    path.write_text('repaint: true\nrepaint_schedule: 2:1\n')  # YAML reads 2:1 as 121, in base 60
    parser = build_parser()
    args, _ = parse_args(parser, build_config_parser(), ['-c', str(path)])
    with pytest.raises(SystemExit):
        check_options(parser, args)
    assert "--repaint-schedule: the schedule is '121'" in (message := capsys.readouterr().err)
    assert 'in YAML with quotes' in message
