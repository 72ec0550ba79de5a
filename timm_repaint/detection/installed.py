"""Whether the packages of the detection extra are there; checked before anything that imports them."""

import warnings
from importlib.util import find_spec

from timm_repaint.errors import UsageError

PACKAGES = ('effdet', 'faster_coco_eval')


def require_packages() -> None:
    """Do nothing, if the extra is installed, but silence what its import would warn of and no user can mend.

    Raises:
        UsageError: if it is not.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise UsageError(f"object detection needs {' and '.join(missing)}: pip install '.[detection]'")
    warnings.filterwarnings('ignore', '`torch.jit.script` is deprecated', FutureWarning)
