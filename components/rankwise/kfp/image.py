"""The image that every step runs in."""

from __future__ import annotations

import os

from rankwise import __version__

IMAGE = os.environ.get("RANKWISE_IMAGE") or f"rankwise-trainer:{__version__}"
"""The trainer's image (images/trainer) of this version. ``RANKWISE_IMAGE``, set while a pipeline is compiled, names the
same image in a registry."""
