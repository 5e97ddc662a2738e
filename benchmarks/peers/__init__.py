"""The servers that ours is compared with, in an environment of their own: `requirements.txt` beside this file."""
