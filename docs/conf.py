"""Configuration of Sphinx."""

from __future__ import annotations

import urllib.request
from importlib.metadata import version as version_of

project = "scmamba-scvi"
author = "scmamba-scvi developers"
copyright = "2026, scmamba-scvi developers"
version = release = version_of("scmamba-scvi")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "_extra", "**.ipynb_checkpoints"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "dollarmath"]
nitpicky = True

# notebooks are executed by `make notebooks`, which stores what they print
nb_execution_mode = "off"
nb_merge_streams = True

autodoc_member_order = "bysource"
autosummary_generate = False
napoleon_google_docstring = False
napoleon_use_rtype = False
always_use_bars_union = True
typehints_defaults = "comma"
typehints_document_rtype = False

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_extra_path = ["_extra"]
html_css_files = ["custom.css"]
html_theme_options = {"show_toc_level": 2, "home_page_in_toc": False}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

INVENTORIES = {
    "anndata": "https://anndata.readthedocs.io/en/stable/",
    "matplotlib": "https://matplotlib.org/stable/",
    "mudata": "https://mudata.readthedocs.io/stable/",
    "numpy": "https://numpy.org/doc/stable/",
    "pandas": "https://pandas.pydata.org/docs/",
    "python": "https://docs.python.org/3/",
    "scanpy": "https://scanpy.readthedocs.io/en/stable/",
    "scipy": "https://docs.scipy.org/doc/scipy/",
    "scvi": "https://docs.scvi-tools.org/en/stable/",
    "torch": "https://docs.pytorch.org/docs/stable/",
}


def _is_reachable(page: str) -> bool:
    try:
        with urllib.request.urlopen(page + "objects.inv", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


# Names of other packages become links only if their pages can be reached now: Sphinx warns of those that cannot, and
# `make docs` takes warnings for errors. For the same reason names of other packages may stay unresolved; our own may not.
intersphinx_mapping = {name: (page, None) for name, page in INVENTORIES.items() if _is_reachable(page)}
_OTHERS = "abc|anndata|collections|igraph|ipywidgets|lightning|matplotlib|mudata|numpy|os|pandas|pathlib|scipy|scvi|torch|typing|np|pd"
nitpick_ignore_regex = [
    (r"py:.*", rf"({_OTHERS})\..*"),
    (
        r"py:.*",
        r"(scmamba_scvi\.nn\.block\.Branch|array|bool|callable|dict|float|int|list|optional|str|tuple|type|AnnOrMuData|None|[A-Z][A-Za-z]*Error|KeyboardInterrupt)",
    ),
]
#: From a type's name where it is defined, or an abbreviation of it, to the name that the documentation of its package has.
PUBLIC_NAMES = {
    "AnnData": "anndata.AnnData",
    "Axes": "matplotlib.axes.Axes",
    "Figure": "matplotlib.figure.Figure",
    "MuData": "mudata.MuData",
    "Tensor": "torch.Tensor",
    "anndata._core.anndata.AnnData": "anndata.AnnData",
    "matplotlib.axes._axes.Axes": "matplotlib.axes.Axes",
    "mudata._core.mudata.MuData": "mudata.MuData",
    "AnnOrMuData": "anndata.AnnData",
    "np.ndarray": "numpy.ndarray",
    "pandas.core.arrays.categorical.Categorical": "pandas.Categorical",
    "pandas.core.frame.DataFrame": "pandas.DataFrame",
    "pandas.core.indexes.base.Index": "pandas.Index",
    "pandas.core.series.Series": "pandas.Series",
    "pd.DataFrame": "pandas.DataFrame",
}


def _resolve_short_name(app, env, node, content):
    """Resolve names of ours that come without their module, and rename those of other packages for intersphinx."""
    target = node.get("reftarget", "")
    if target in PUBLIC_NAMES:
        node["reftarget"] = PUBLIC_NAMES[target]  # intersphinx looks it up after this
    domain = env.get_domain("py")
    ours = [name for name in domain.objects if name.startswith("scmamba_scvi.") and name.endswith(f".{target}")]
    if node.get("refdomain") == "py" and target and len(ours) == 1:
        return domain.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], ours[0], node, content)
    return None


def _returns_as_prose(app, what, name, obj, options, lines):
    """Make a field of a section "Returns" in prose, before napoleon takes each of its lines for the name of a value."""
    under = [i for i, line in enumerate(lines) if line.strip() and not line.strip("-")]
    starts = [i - 1 for i in under]
    at = next((i for i in starts if lines[i] == "Returns"), None)
    if at is None:
        return
    end = next((i for i in starts if i > at), len(lines))
    body = list(lines[at + 2 : end])
    while body and not body[-1].strip():
        body.pop()
    described = [i for i in range(1, len(body)) if body[i][:1] == " " and body[i - 1][:1] not in (" ", "")]
    for i in reversed(described):  # a list of names with their descriptions stands apart from what is before it
        body.insert(i - 1, "")
    lines[at:end] = [f":returns: {body[0]}", *(f"    {line}" if line else "" for line in body[1:]), ""]


def setup(app):
    """Ask `_resolve_short_name` before intersphinx, and `_returns_as_prose` before napoleon; the priority of both is 500."""
    app.connect("missing-reference", _resolve_short_name, priority=100)
    app.connect("autodoc-process-docstring", _returns_as_prose, priority=100)
