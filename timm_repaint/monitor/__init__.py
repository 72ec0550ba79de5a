"""What is measured and drawn while training: gallery, probe, alarms. The engine calls it; it knows no engine."""
