"""Networks and their weights: catalogue, verification, loading, precision and device.

This is the lowest layer: it knows nothing of Kafka, frames or stores.
"""

import os

# Ultralytics reads these once, when it is first imported. Without the first it runs pip whenever a
# package seems missing, even from inside PIL.Image.open, which it replaces, when a picture cannot
# be read. Without the second its notices go to standard output, amid the JSON of our own commands.
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_VERBOSE", "false")
