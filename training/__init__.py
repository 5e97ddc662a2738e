"""Train, evaluate and export person re-identification networks.

Implements "Effective person re-identification by self-attention model guided feature learning"
(Li, Jiang, Hwang; Knowledge-Based Systems, 2019). Shares a file format, and no code, with `service`.
"""
