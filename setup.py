"""Builds ``tokengate._core`` and ``tokengate._board``; all metadata is in pyproject.toml.

Environment variables read here:

TOKENGATE_DEBUG=1
    No optimisation, debug symbols, C asserts on, ``TG_DEBUG`` defined as 1.
TOKENGATE_SANITIZE=address|thread|undefined
    The core instrumented by that sanitizer (gcc and clang only).
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("TOKENGATE_DEBUG", "0") not in ("", "0")
SANITIZE = os.environ.get("TOKENGATE_SANITIZE", "")

if SANITIZE not in ("", "address", "thread", "undefined"):
    sys.exit(f"TOKENGATE_SANITIZE={SANITIZE!r} is not one of address, thread, undefined")

# Holds the flags of the last build. The core depends on it, so that after a build with other flags
# in the same tree it is not taken for up to date.
FLAGS = Path("build/cython/flags.txt")

DIRECTIVES = {
    "language_level": "3",
    "freethreading_compatible": True,
    "binding": True,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "nonecheck": True,  # a misused object raises; it does not crash
    "initializedcheck": False,
    "auto_pickle": False,  # nothing in the core makes sense in another process
    "autotestdict": False,
}


class BuildCore(build_ext):
    """Translates the core, then compiles it with the flags of the compiler in use."""

    def build_extensions(self) -> None:
        """Called by setuptools once the compiler is known."""
        # Only here: neither the sdist nor the metadata needs Cython or a compiler.
        from Cython.Build import cythonize
        from Cython.Compiler import Options

        # What Cython warns of (a `with gil` where module state is per interpreter, say) is unsafe.
        Options.warning_errors = True
        compile_args, link_args = self._flags()
        _write_if_changed(FLAGS, " ".join([*compile_args, *link_args]))
        for extension in self.extensions:
            extension.extra_compile_args += compile_args
            extension.extra_link_args += link_args
            extension.depends.append(str(FLAGS))
            if extension.sources[0].endswith(".c"):
                continue
            translated = cythonize(
                [extension],
                build_dir=str(FLAGS.parent),  # the generated C stays out of the source tree
                compiler_directives=DIRECTIVES,
                force=self.force,
            )
            extension.sources = translated[0].sources
        super().build_extensions()

    def _flags(self) -> tuple[list[str], list[str]]:
        # -UNDEBUG: Python's own flags carry -DNDEBUG, which would silence assert().
        debug = ["-DTG_DEBUG=1", "-UNDEBUG"] if DEBUG else []
        if self.compiler.compiler_type == "msvc":
            if SANITIZE:
                sys.exit("TOKENGATE_SANITIZE needs gcc or clang")
            # MSVC offers <stdatomic.h> to C only behind the second switch.
            args = ["/std:c11", "/experimental:c11atomics", *debug]
            return ([*args, "/Od", "/Zi"], ["/DEBUG"]) if DEBUG else ([*args, "/O2"], [])
        sanitize = [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-g"] if SANITIZE else []
        optimise = ["-O0", "-g"] if DEBUG else ["-O3"]
        args = ["-std=c11", "-fvisibility=hidden", "-pthread", *optimise, *debug, *sanitize]
        return args, ["-pthread", *sanitize[:1]]


def _write_if_changed(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


setup(
    ext_modules=[
        Extension(
            "tokengate._core",
            ["tokengate/_core.pyx"],
            include_dirs=["tokengate/_native"],
            depends=[
                *map(str, Path("tokengate/_corelib").glob("*.pxi")),
                *map(str, Path("tokengate/_native").glob("*.h")),
            ],
        ),
        # What a worker of another lane shares with its parent; loads where the core cannot.
        Extension(
            "tokengate._board",
            ["tokengate/_board.c"],
            include_dirs=["tokengate/_native"],
            depends=["tokengate/_native/tg_board.h", "tokengate/_native/tg_base.h"],
        ),
    ],
    cmdclass={"build_ext": BuildCore},
)
