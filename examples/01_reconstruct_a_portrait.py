"""A portrait to a head, in this process, without a server.

    .venv/bin/python examples/01_reconstruct_a_portrait.py [FOLDER]

The picture is NASA's public-domain portrait of Eileen Collins that ships with scikit-image.
"""

import sys
from pathlib import Path

from PIL import Image
from skimage import data

from mononphm_cli.main import run

folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("out/astronaut")
folder.mkdir(parents=True, exist_ok=True)

portrait = folder / "portrait.png"
Image.fromarray(data.astronaut()).save(portrait)

# The same as on the command line: mononphm reconstruct portrait.png -o FOLDER/head --quality draft
code = run(["reconstruct", str(portrait), "-o", str(folder / "head"), "--quality", "draft"])
print(f"exit code {code}; look at {folder / 'head' / 'preview.png'}")
sys.exit(code)
