"""Options that went away: files of earlier versions may still have them."""

from typing import Any

from timm_repaint.errors import UsageError
from timm_repaint.log import logger

# Name and default; no result needed them, and the paper does not have them.
REMOVED = {'repaint_split_bn': False, 'repaint_rec_weight': 0.0, 'mask_multi_scale': False}


def drop_removed(options: dict[Any, Any], path: object) -> dict[Any, Any]:
    """The options of a file, by names with dashes or underscores, without those that went away.

    Raises:
        UsageError: if one of them has another value than its default, so that the run would be another one.
    """
    names = {str(name).lstrip('-').replace('-', '_'): name for name in options}
    old = [name for name in REMOVED if name in names]
    for name in old:
        value = options[names[name]]
        if value not in (None, REMOVED[name]):
            raise UsageError(f'{path} has {name}: {value}, an option that went away; use version 0.1, or leave it out')
    if old:
        logger.info('%s has options that went away, at their defaults: %s.', path, ', '.join(old))
    return {name: value for key, name in names.items() if key not in old for value in [options[name]]}
