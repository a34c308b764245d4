"""The wave benchmark from a checkout: ``python bench/wave.py [options]``.

The same as ``python -m tokengate wave``, but always of this checkout, whatever is installed.
"""  # noqa: A005 - a script, never imported

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
    sys.exit(main(["wave", *sys.argv[1:]]))
