"""How Sphinx makes the site; scripts/make_site.py starts it on a copy of the pages."""

from llenergymeasure import __version__

project = "llenergymeasure"
author = "The llenergymeasure authors"
copyright = "2026, The llenergymeasure authors"  # noqa: A001 - Sphinx reads this name
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "contents"
html_theme = "furo"  # asks no other host for fonts or scripts
html_title = f"llenergymeasure {__version__}"

myst_heading_anchors = 6  # links to headings are those of the repository
autodoc_typehints_format = "short"
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "exclude-members": "model_config, model_post_init",
}
exclude_patterns = ["README.md"]  # the front page includes it
suppress_warnings = ["misc.highlighting_failure", "myst.header"]
