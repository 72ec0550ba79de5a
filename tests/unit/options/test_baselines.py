"""What --isda, --cutout and --train-fraction refuse, with and without --repaint."""

import pytest

from timm_repaint.options import build_parser, check_options

REFUSED = [
    ('--isda 7.5', '--smoothing is 0.1', 'give --smoothing 0'),
    ('--isda 7.5 --smoothing 0 --mixup 0.2', 'MixUp and CutMix make them soft', 'leave out --mixup and --cutmix'),
    ('--isda 7.5 --smoothing 0 --cutmix 1', 'needs hard labels', 'leave out --mixup and --cutmix'),
    ('--isda 7.5 --smoothing 0 --cutmix-minmax 0.2 0.8', 'needs hard labels', 'leave out --mixup and --cutmix'),
    ('--isda 7.5 --smoothing 0 --bce-loss', '--bce-loss is another loss', 'leave one of them out'),
    ('--isda 7.5 --smoothing 0 --kd-model-name resnet18', '--kd-model-name is another loss', 'leave one'),
    ('--isda 7.5 --smoothing 0 --torchcompile inductor', 'which --torchcompile hides', 'leave --torchcompile out'),
    ('--isda -1 --smoothing 0', '--isda is -1.0', 'must be 0 or more'),
    ('--isda nan --smoothing 0', '--isda is nan', 'must be 0 or more'),
    ('--cutout -4', '--cutout is -4', 'must be 0 or more'),
    ('--cutout 16 --no-aug', '--no-aug leaves them', 'leave one of them out'),
    ('--train-fraction 0', '--train-fraction is 0.0', 'above 0 and at most 1'),
    ('--train-fraction 1.5', '--train-fraction is 1.5', 'above 0 and at most 1'),
]


def refusal(capsys, *argv):
    parser = build_parser()
    with pytest.raises(SystemExit) as stop:
        check_options(parser, parser.parse_args(argv))
    assert stop.value.code == 2
    return capsys.readouterr().err.split('error: ')[1]


@pytest.mark.parametrize('repaint', [(), ('--repaint',)], ids=['plain', 'repaint'])
@pytest.mark.parametrize('case', REFUSED, ids=[case[0] for case in REFUSED])
def test_the_reason_and_the_way_out_are_told(capsys, case, repaint):
    argv, *parts = case
    message = refusal(capsys, *argv.split(), *repaint)
    assert all(part in message for part in parts), message


def test_cutout_without_repaint_needs_the_prefetcher(capsys):
    assert 'leave out --no-prefetcher' in refusal(capsys, '--cutout', '16', '--no-prefetcher')
    assert 'patch sequences' in refusal(capsys, '--cutout', '16', '--naflex-loader')


@pytest.mark.parametrize('argv', ['--isda 7.5 --smoothing 0', '--cutout 16', '--train-fraction 0.1', '--isda 0'])
def test_fitting_options_pass_with_and_without_repaint(argv):
    parser = build_parser()
    for repaint in ([], ['--repaint']):
        check_options(parser, parser.parse_args([*argv.split(), *repaint]))
