"""Object detection with Repaint: EfficientDet on COCO (`python -m timm_repaint.detection.train`)."""
