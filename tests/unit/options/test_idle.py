"""Options that do nothing beside others are named."""

import pytest

from timm_repaint.options import build_parser, check_options


def warned(caplog, text):
    parser = build_parser()
    caplog.clear()
    check_options(parser, parser.parse_args(text.split()))
    return ' '.join(caplog.messages)


IDLE = [
    ('--pretrained-path w.pth', 'without --pretrained these options do nothing: --pretrained-path'),
    ('--repaint-width 8', 'without --repaint these options do nothing: --repaint-width'),
    (
        '--repaint --repaint-generator shift --repaint-width 8 --repaint-g-lr 0.1',
        'which has no network, these options do nothing: --repaint-width, --repaint-g-lr',
    ),
    (
        '--repaint --repaint-freeze --repaint-checkpoint {file} --repaint-kl-weight 1 --repaint-gan-loss lsgan',
        'with --repaint-freeze these options do nothing: --repaint-gan-loss, --repaint-kl-weight',
    ),
    (
        '--repaint --repaint-latent global --repaint-segment-kl-weight 2',
        'with --repaint-latent global these options do nothing: --repaint-segment-kl-weight',
    ),
    ('--repaint --mask superpixels --fh-scale 9', 'with --mask superpixels these options do nothing: --fh-scale'),
    ('--repaint --mask fh --mask-checkpoint a.pth', 'with --mask fh these options do nothing: --mask-checkpoint'),
]


@pytest.mark.parametrize(('argv', 'message'), IDLE, ids=[argv for argv, _ in IDLE])
def test_an_option_that_does_nothing_is_named(argv, message, caplog, tmp_path):
    (tmp_path / 'a.pth').touch()
    assert message in warned(caplog, argv.format(file=tmp_path / 'a.pth'))


@pytest.mark.parametrize(
    'argv',
    [
        '',
        '--pretrained --pretrained-path w.pth',
        '--repaint --repaint-width 8 --repaint-g-lr 0.1 --repaint-segment-kl-weight 2 --fh-scale 9',
        '--repaint --repaint-generator shift --repaint-prob 0.2',
        '--repaint --mask deeplabv2 --mask-checkpoint a.pth',
    ],
)
def test_options_that_work_are_not(argv, caplog):
    assert warned(caplog, argv) == ''


def test_classes_of_masks_are_for_ones_own_maps(capsys):
    parser = build_parser()
    with pytest.raises(SystemExit):
        check_options(parser, parser.parse_args(['--repaint', '--mask', 'fh', '--mask-classes', '3']))
    assert '--mask-classes says what is in --mask folder, --mask is fh; leave it out' in capsys.readouterr().err
