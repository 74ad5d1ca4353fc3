"""Makes the ROS wheels' CMake files name this interpreter.

The wheels were built in a container, and their exported targets name its Python (`/opt/python/cp311-cp311/include/python3.11` and
numpy's headers below it), so nothing could be built against them. Run with the interpreter of the environment; twice does no harm.
"""

import re
import sys
import sysconfig
from pathlib import Path

import numpy

BUILD_NUMPY = re.compile(r"/opt/python/cp\d+-cp\d+/lib/python3\.\d+/site-packages/numpy/(?:_?core)/include")
BUILD_PYTHON = re.compile(r"/opt/python/cp\d+-cp\d+/include/python3\.\d+")


def main() -> None:
    numpy_headers, python_headers = numpy.get_include(), sysconfig.get_path("include")
    for file in (Path(sys.prefix) / "share").glob("*/cmake/*.cmake"):
        old = file.read_text(encoding="utf-8")
        new = BUILD_PYTHON.sub(lambda _: python_headers, BUILD_NUMPY.sub(lambda _: numpy_headers, old))
        if new != old:
            file.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
