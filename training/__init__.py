"""Train, evaluate and export person re-identification networks.

Implements "Effective person re-identification by self-attention model guided feature learning"
(Li, Jiang, Hwang; Knowledge-Based Systems, 2019). Shares a file format, and no code, with `service`.
"""

import os

# ONNX Runtime 1.31 notes events for a collector of Microsoft's, unless this is set before its import. Resight works on
# pictures of people: nothing calls home.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
