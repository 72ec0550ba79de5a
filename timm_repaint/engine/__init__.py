"""The stages of a training run, as functions around timm's: `run.py` shows their order."""
