"""``python -m llenergymeasure`` is ``llem``, of the interpreter that is named."""

from __future__ import annotations

from llenergymeasure.cli.app import main

if __name__ == "__main__":
    main()
