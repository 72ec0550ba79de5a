"""What a detector refuses, with the reason; its defaults; and the error without the extra."""

import pytest

from timm_repaint.detection import installed
from timm_repaint.detection.options import DEFAULTS, REFUSED, build_parser, check_detection, find_problems
from timm_repaint.errors import UsageError
from timm_repaint.options.roles import Role

COCO = ('--data-dir', 'coco')


def problems(*argv):
    parser = build_parser()
    return list(find_problems(parser, parser.parse_args([*COCO, *argv])))


def test_the_defaults_are_a_detectors_and_pass_all_checks():
    parser = build_parser()
    args = parser.parse_args([*COCO, '--repaint'])
    assert {name: getattr(args, name) for name in DEFAULTS} == DEFAULTS
    check_detection(parser, args)


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['--mixup', '0.2'], '--mixup does not go with detection: it mixes images or hides parts of them'),
        (['--aa', 'v0'], '--aa does not go with detection: boxes have no place in it'),
        (['--smoothing', '0.1'], '--smoothing does not go with detection: it belongs to the loss of a classifier'),
        (['--drop', '0.1'], "--drop does not go with detection: it shapes a classifier; give effdet's own settings"),
        (['--no-prefetcher'], '--no-prefetcher does not go with detection: images and boxes are read in'),
        (['--dataset', 'torch/cifar10'], "--dataset is 'torch/cifar10'; a detector reads a folder in COCO's layout"),
        (['--dataset', 'shapes', '--train-fraction', '0.5'], '--train-fraction is for images in files'),
        (['--train-num-samples', '5'], '--train-num-samples and --val-num-samples are for --dataset shapes'),
        (['--dataset', 'shapes', '--mask', 'outlines'], '--mask outlines is for the classification set'),
        (['--scale-jitter', '2', '1'], '--scale-jitter is 2.0 1.0; it takes two factors above 0'),
    ],
)
def test_what_has_no_meaning_is_refused_with_the_reason(argv, message, capsys):
    assert [problem for problem in problems(*argv) if message in problem]
    parser = build_parser()
    with pytest.raises(SystemExit) as stop:
        check_detection(parser, parser.parse_args([*COCO, *argv]))
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_a_classifiers_metric_is_refused(capsys):
    parser = build_parser()
    with pytest.raises(SystemExit):
        check_detection(parser, parser.parse_args([*COCO, '--eval-metric', 'top1']))
    assert "--eval-metric is 'top1'; choose one of map, ap50, loss" in capsys.readouterr().err


def test_every_refused_option_is_one_and_the_help_leaves_it_out():
    parser, shown = build_parser(), build_parser().format_help()
    for dest in sorted(set().union(*(role.names for role in (*REFUSED, Role.FURTHER)))):
        assert hasattr(parser.parse_args([]), dest), dest
        assert f'--{dest.replace("_", "-")} ' not in shown, dest
    assert '--scale-jitter' in shown and '--repaint-prob' in shown


def test_without_the_extra_the_error_names_the_install_line(monkeypatch):
    installed.load_functions()
    monkeypatch.setattr(installed, 'PACKAGES', ('torch', 'no_such_detector'))
    with pytest.raises(UsageError, match=r"object detection needs no_such_detector: pip install '\.\[detection\]'"):
        installed.load_functions()
