"""Configuration of the documentation site: `make docs`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS / "_ext"))
os.environ.setdefault("MPLBACKEND", "agg")

from aurel import __version__  # noqa: E402

project = "AUREL"
author = "the authors of AUREL"
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "generated",
    "mathml",
]
exclude_patterns = [
    "_build",
    "_generated",
    "sg_execution_times.rst",
    "gallery/sg_execution_times.rst",
]
nitpicky = True
# Docstrings also have arguments and types of other libraries in single backticks: names that
# resolve become links, other names become code.
default_role = "py:obj"
nitpick_ignore_regex = [
    ("py:obj", ".*"),
    ("py:(class|data|exc|func|meth|mod)", r"(?!aurel).*"),
    ("py:(class|mod)", r"aurel\.([a-z_]+\.)+.*"),  # modules that are not public
    ("py:class", r"aurel\.metrics\._.*"),
]

if not (DOCS / "benchmarks.md").is_file():  # `make bench-report` writes it
    suppress_warnings = ["myst.xref_missing"]

html_theme = "furo"
html_title = f"AUREL {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {
    "members": True,
    "exclude-members": "reset_parameters, extra_repr, convolve, update, compute, training",
}
maximum_signature_line_length = 72
napoleon_use_rtype = False
napoleon_use_ivar = True

copybutton_exclude = ".linenos, .gp, .go"


sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/\d\d_",
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("matplotlib", "saved_pictures.scrape"),
    "reference_url": {"aurel": None},
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "capture_repr": (),
    "plot_gallery": "True",
}


def setup(app: Any) -> None:
    app.connect("config-inited", _only_rst_headers, priority=900)


def _only_rst_headers(app: Any, config: Any) -> None:
    # A README.md in a folder of examples is no header of a gallery.
    config.sphinx_gallery_conf["source_suffix"] = {".rst": "restructuredtext"}
