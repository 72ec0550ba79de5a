"""The version, which pyproject.toml reads without importing the package."""

__version__ = '0.2.0.dev0'
