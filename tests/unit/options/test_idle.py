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
        'with --repaint-generator shift these options do nothing: --repaint-width, --repaint-g-lr',
    ),
    (
        '--repaint --repaint-freeze --repaint-checkpoint {file} --repaint-kl-weight 1 --repaint-gan-loss original',
        'with --repaint-freeze these options do nothing: --repaint-gan-loss, --repaint-kl-weight',
    ),
    (
        '--repaint --repaint-latent global --repaint-segment-kl-weight 2',
        'with --repaint-latent global these options do nothing: --repaint-segment-kl-weight',
    ),
    ('--mixup-prob 0.5', 'without --mixup or --cutmix these options do nothing: --mixup-prob'),
    ('--mixup 0.2 --mixup-switch-prob 0.1', 'without both --mixup and --cutmix these options do nothing'),
    ('--remode rand --recount 2', 'without --reprob these options do nothing: --remode, --recount'),
    ('--model-ema-decay 0.9', 'without --model-ema these options do nothing: --model-ema-decay'),
    ('--lr 0.1 --lr-base 0.2', 'with --lr these options do nothing: --lr-base'),
    ('--no-aug --hflip 0.1 --aa v0', 'with --no-aug these options do nothing: --hflip, --aa'),
    ('--aa v0 --color-jitter 0.1', 'with --aa v0 these options do nothing: --color-jitter'),
    ('--decay-milestones 3 6', 'with --sched cosine these options do nothing: --decay-milestones'),
    ('--sched none --warmup-lr 0.1', 'with --sched none these options do nothing: --warmup-lr'),
    ('--lr-cycle-mul 2', 'with --lr-cycle-limit 1 these options do nothing: --lr-cycle-mul'),
    ('--opt adamw --momentum 0.5', 'with --opt adamw these options do nothing: --momentum'),
    ('--opt-betas 0.9 0.99 --opt-eps 1', 'with --opt sgd these options do nothing: --opt-eps, --opt-betas'),
    ('--opt-kwargs eps=1e-3', 'with --opt sgd these options do nothing: --opt-kwargs'),
    ('--epoch-repeats 2 --train-num-samples 9', 'is no stream these options do nothing: --train-num-samples, --epoch'),
    (
        '--dataset shapes --val-num-samples 9 --epoch-repeats 2',
        'is no stream these options do nothing: --epoch-repeats',
    ),
    ('--kd-temperature 2', 'without --kd-model-name these options do nothing: --kd-temperature'),
    ('--naflex-max-seq-len 64', 'without --naflex-loader these options do nothing: --naflex-max-seq-len'),
    ('--repaint --mask superpixels --fh-scale 9', 'with --mask superpixels these options do nothing: --fh-scale'),
    ('--repaint --mask fh --mask-checkpoint a.pth', 'with --mask fh these options do nothing: --mask-checkpoint'),
]


@pytest.mark.parametrize(('argv', 'message'), IDLE, ids=[argv for argv, _ in IDLE])
def test_an_option_that_does_nothing_is_named(argv, message, caplog, tmp_path):
    (tmp_path / 'a.pth').touch()
    assert message in warned(caplog, argv.format(file=tmp_path / 'a.pth'))


@pytest.mark.parametrize('argv', ['--mask fh', '--mask=fh', '--repaint-prob 0.5'])
def test_an_option_of_ours_with_its_default_is_named_where_repaint_is_forgotten(argv, caplog, monkeypatch):
    monkeypatch.setattr('sys.argv', ['train.py', *argv.split()])
    flag = argv.replace('=', ' ').split()[0]
    assert warned(caplog, argv) == f'without --repaint these options do nothing: {flag}'
    assert warned(caplog, f'--repaint {argv}') == ''


@pytest.mark.parametrize(
    'argv',
    [
        '',
        '--mixup 0.2 --cutmix 1 --mixup-prob 0.5 --mixup-switch-prob 0.2 --reprob 0.1 --remode rand',
        '--sched step --decay-epochs 2.4 --decay-rate 0.9 --opt rmsproptf --opt-eps 0.01 --momentum 0.8 --model-ema '
        '--model-ema-decay 0.99 --aa rand-m9-mstd0.5 --lr-base 0.2 --lr-noise 0.4 0.9 --lr-noise-pct 0.5 --amp '
        '--amp-dtype bfloat16 --warmup-lr 0.001 --clip-grad 1 --clip-mode agc --layer-decay 0.7',
        '--sched multistep --decay-milestones 1 2 --opt lookahead_adamw --opt-betas 0.8 0.99 --opt-eps 1e-6',
        '--dataset wds/photos --epoch-repeats 2 --train-num-samples 9 --val-num-samples 9',
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
