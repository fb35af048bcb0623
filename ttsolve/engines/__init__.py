"""Engines: what samples and scores, one external runtime a file."""

import os

# ONNX Runtime reports to its makers unless this stands here before it is imported, which happens
# in this package alone; a process that is started from here inherits it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
