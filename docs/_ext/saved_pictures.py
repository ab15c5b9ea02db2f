"""Show the pictures that an example wrote beside itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst


def scrape(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    paths = []
    for picture in sorted(Path(block_vars["src_file"]).parent.glob("*.png")):
        paths.append(next(block_vars["image_path_iterator"]))
        shutil.move(picture, paths[-1])
    return figure_rst(paths, gallery_conf["src_dir"])
