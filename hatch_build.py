"""Build step: compile the C files of `vitlab.data.native` where there is a C compiler, and go on without where there is none."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("src/vitlab/data/native")
LIBRARY = FOLDER / "libvitlab.so"
# Without contraction a multiply and an add round twice everywhere, so the pixels are the same on every machine.
FLAGS = ["-O3", "-std=gnu11", "-ffp-contract=off", "-fPIC", "-shared", "-fvisibility=hidden"]


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the compiled library to a wheel, or leaves it in the source tree of an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and tag the wheel for this platform if that worked."""
        del version
        if self.target_name != "wheel" or not self._compile(Path(self.root)):
            return
        build_data["artifacts"].append(f"/{LIBRARY.as_posix()}")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

    def _compile(self, root: Path) -> bool:
        (root / LIBRARY).unlink(missing_ok=True)
        compiler = shutil.which(os.environ.get("CC") or "cc")
        if compiler is None or os.name == "nt" or sys.maxsize < 2**32:
            self.app.display_warning(
                "no C compiler: vitlab will decode JPEG files with Pillow alone, about 2 times slower"
            )
            return False
        sources = sorted(map(str, (root / FOLDER).glob("*.c")))
        command = [
            compiler,
            *FLAGS,
            *sources,
            "-o",
            str(root / LIBRARY),
            "-lm",
            *(["-ldl"] if sys.platform == "linux" else []),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            self.app.display_warning(
                f"vitlab will decode JPEG files with Pillow alone: {' '.join(command)}\n{done.stderr}"
            )
        return done.returncode == 0
