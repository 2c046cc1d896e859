"""A child that begins a message and never ends it."""

from __future__ import annotations

import json
import os
import sys
import time

if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    os.write(job["fd"], (1000).to_bytes(4, "big") + b"the rest never comes")
    time.sleep(3600)
