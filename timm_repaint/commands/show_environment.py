"""`timm-repaint env`: versions and hardware, for bug reports."""

import os
import platform
from argparse import ArgumentParser
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from timm_repaint.commandline import num_cpus
from timm_repaint.version import __version__

OPENCV = tuple(f'opencv{contrib}-python{ui}' for contrib in ('-contrib', '') for ui in ('-headless', ''))
PACKAGES = {
    **{name: (name.lower(),) for name in ('torch', 'torchvision', 'timm', 'numpy', 'Pillow', 'scikit-image')},
    **{'OpenCV': OPENCV, 'effdet': ('effdet',)},
}


def main() -> int:
    """Print a line a fact; returns the process's exit status."""
    ArgumentParser(prog='timm-repaint env', description='Versions and hardware, to go with a bug report.').parse_args()
    for name, value in facts():
        print(f'{name + ":":<14}{value}')
    return 0


def facts() -> Iterator[tuple[str, str]]:
    """Names and values."""
    yield 'timm_repaint', __version__
    yield 'Python', platform.python_version()
    for name, distributions in PACKAGES.items():
        yield name, installed_version(distributions)
    yield from gpu_facts()
    yield 'platform', platform.platform()
    yield 'CPUs', f'{num_cpus()} of {os.cpu_count()}'


def installed_version(distributions: tuple[str, ...]) -> str:
    """The version of the first of these distributions that is there."""
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return 'not installed'


def gpu_facts() -> Iterator[tuple[str, str]]:
    """CUDA as torch was built for it, and the GPUs that it sees."""
    import torch

    yield 'CUDA', f'{torch.version.cuda or "not in this torch"}'
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    yield 'GPUs', ', '.join(torch.cuda.get_device_name(index) for index in range(count)) or 'none'
