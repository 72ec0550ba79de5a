"""The stages of a run that are a detector's own."""

from effdet import create_model

from timm_repaint.detection.coco_loaders import build_loaders
from timm_repaint.detection.detection_watch import DetectionWatch
from timm_repaint.detection.evaluate import validate
from timm_repaint.detection.task import build_model, build_task, resolve_data
from timm_repaint.engine.loop import train_one_epoch
from timm_repaint.engine.run import Functions

FINE_TUNE_COMMAND = 'python -m timm_repaint.detection.fine_tune'
FUNCTIONS = Functions(
    create_model,
    train_one_epoch,
    validate,
    build_model,
    resolve_data,
    build_loaders,
    build_task,
    DetectionWatch,
    FINE_TUNE_COMMAND,
)
