"""The sweep from a checkout: ``python bench/sweet_spot.py [options]``.

The same as ``python -m tokengate sweep``, but always of this checkout, whatever is installed.
"""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

if not any((ROOT / "tokengate" / f"_core{suffix}").exists() for suffix in EXTENSION_SUFFIXES):
    sys.exit(
        "The core is not built for this Python. In the checkout:\n"
        "  pip install -e .    or    python setup.py build_ext --inplace"
    )
sys.path.insert(0, str(ROOT))

from tokengate.__main__ import main  # noqa: E402 - the path comes first

if __name__ == "__main__":
    sys.exit(main(["sweep", *sys.argv[1:]]))
