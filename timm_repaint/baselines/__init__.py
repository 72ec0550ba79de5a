"""The rivals of Repaint that timm does not have: ISDA, CutOut and stylized images."""
