"""The small programs of `timm-repaint`: what it knows about itself, and what it writes out."""
