"""Options of the classifier's optimizer."""

import argparse

from timm.utils import ParseKwargs


def add_optimizer_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of timm's script that create and shape the optimizer."""
    add = parser.add_argument_group('Optimizer').add_argument
    add('--opt', type=str, default='sgd', metavar='NAME', help="any timm optimizer; 'lookahead_' in front adds that")
    add('--opt-eps', type=float, metavar='X', help="epsilon; unset: the optimizer's own")
    add('--opt-betas', type=float, nargs='+', metavar='X', help="betas; unset: the optimizer's own")
    add('--momentum', type=float, default=0.9, metavar='X', help='momentum')
    add('--weight-decay', type=float, default=2e-5, metavar='X', help='weight decay')
    add('--clip-grad', type=float, metavar='X', help='limit for the gradient; unset: none')
    add('--clip-mode', type=str, default='norm', metavar='MODE', help='what is limited: norm, value or agc (adaptive)')
    add('--layer-decay', type=float, metavar='X', help='factor on the learning rate for each layer away from the head')
    add('--layer-decay-min-scale', type=float, default=0, metavar='X', help='lowest product of those factors')
    add('--layer-decay-no-opt-scale', type=float, metavar='X', help='layers below this product are not trained')
    add('--opt-kwargs', nargs='*', default={}, action=ParseKwargs, metavar='K=V', help='more optimizer arguments')
