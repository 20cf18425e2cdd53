"""Configuration of Sphinx."""

from importlib.metadata import version as version_of

project = "scmamba-scvi"
author = "scmamba-scvi developers"
copyright = "2026, scmamba-scvi developers"
version = release = version_of("scmamba-scvi")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
# the README's links into the repository have no page here
suppress_warnings = ["myst.xref_missing"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = False
napoleon_use_rtype = False

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
