"""Puts the files outside of the package that a run needs into the wheel, as hipgpt/project."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FILES = ("Snakefile", "config.yaml")
FOLDERS = ("workflow", "kernels", "profiles", "configs")


class BuildWithProject(build_py):
    """Copies the project. An editable install needs no copy, because it imports the checkout."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        here, project = Path(__file__).parent, Path(self.build_lib, "hipgpt", "project")
        shutil.rmtree(project, ignore_errors=True)
        project.mkdir(parents=True)
        for file in FILES:
            shutil.copy2(here / file, project / file)
        for folder in FOLDERS:
            shutil.copytree(here / folder, project / folder, ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": BuildWithProject})
