"""What the repaint phase costs on this machine, against plain training: `python -m timm_repaint.benchmark`."""
