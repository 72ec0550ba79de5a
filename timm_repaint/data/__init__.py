"""Data sets, and how images and their masks travel through timm's loader."""
