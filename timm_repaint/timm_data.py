"""timm's data sets; what they cannot find or read is told in one line."""

import tarfile
from typing import Any

from timm.data import create_dataset

from timm_repaint.errors import UsageError

# Of timm's readers.
PACKAGES = {'hfds': 'datasets', 'hfids': 'datasets', 'wds': 'webdataset', 'tfds': 'tensorflow tensorflow-datasets'}


def create_timm_dataset(name: str, split: str, **kwargs: Any) -> Any:
    """timm's factory; what it cannot find or read is the user's mistake."""
    kind = name.split('/')[0].lower()
    if kind == 'wds' and not kwargs.get('root'):
        raise UsageError(f'--dataset {name} needs --data-dir DIR, the folder with its shards')
    try:
        return create_dataset(name, split=split, **kwargs)
    except ImportError as error:
        package = PACKAGES.get(kind, error.name)
        raise UsageError(f'--dataset {name} needs another package: pip install {package} ({error})') from error
    except (OSError, RuntimeError, ValueError, AssertionError, LookupError, EOFError, tarfile.TarError) as error:
        told = ' '.join(str(error).split())
        what = f'--dataset {name!r}' if name else kwargs.get('root')
        raise UsageError(f'{split} split of {what}: {told or type(error).__name__}') from error
