"""Builds the stand-in HIP runtime and says how a process comes to load it."""

import os
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
COMPILER = "g++"  # for the kernels too: the checks of their loads and stores are asked for in GCC's words
OPTIONS = ("-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden")


def build(rocm: Path) -> None:
    """Make a folder that ROCM_PATH may point to: one library, named as HIP's runtime, HIPRTC and RCCL."""
    library = rocm / "lib" / "libamdhip64.so"
    library.parent.mkdir(parents=True)
    places = [f'-DFAKEHIP_CXX="{COMPILER}"', f'-DFAKEHIP_FOLDER="{HERE}"']
    sources = [str(path) for path in sorted(HERE.glob("*.cpp"))]
    subprocess.run([COMPILER, *OPTIONS, *places, *sources, "-o", str(library)], check=True)
    for name in ("libhiprtc.so", "librccl.so.1"):
        (library.parent / name).symlink_to(library.name)


def environment(rocm: Path, chips: str) -> dict[str, str]:
    """Return the environment of a process whose HIP is the stand-in, with the chips listed, such as gfx90a,gfx1100."""
    store = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fakehip"  # several test files share it
    own = {"ROCM_PATH": str(rocm), "XDG_CACHE_HOME": str(rocm / "cache"), "FAKEHIP_STORE": str(store)}
    return os.environ | own | {"FAKEHIP_CHIPS": chips}
