"""A microservice for person re-identification: the model file embeds crops, the gallery keeps and ranks them."""

import os

# ONNX Runtime 1.31 notes events for a collector of Microsoft's, unless this is set before its import. Resight works on
# pictures of people: nothing calls home.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
