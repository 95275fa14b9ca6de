"""What starting the face library brings in."""

import subprocess
import sys

PROGRAM = """
import sys
from mononphm_core.preprocessing.finder import Finder
with Finder():
    pass
assert not any(name.startswith("matplotlib") for name in sys.modules), "a plotting library was imported"
import matplotlib.pyplot
assert matplotlib.pyplot.plot and matplotlib.__version__
"""


def test_the_face_library_comes_without_its_plots_and_hides_them_from_nobody():
    """Its drawings cost half a second of every start; whoever plots in the same process gets the true library."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
