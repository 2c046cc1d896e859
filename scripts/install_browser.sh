#!/usr/bin/env bash
# install_browser.sh PYTHON: Debian's Chromium and what drives it, for tests/integration/test_page_in_browser.py.
set -euo pipefail
command -v chromium >/dev/null || apt-get install --yes --no-install-recommends chromium
"$1" -m pip --disable-pip-version-check install --quiet playwright
