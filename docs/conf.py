"""Configuration of Sphinx."""

from __future__ import annotations

import base64
import importlib
import inspect
import io
import json
import re
import urllib.request
from importlib.metadata import metadata
from pathlib import Path
from typing import get_type_hints

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml
from PIL import Image
from sphinx.addnodes import desc_signature

from scmamba_scvi.config import ModelConfig, TrainConfig

project = "scmamba-scvi"
author = "scmamba-scvi developers"
copyright = "2026, scmamba-scvi developers"
_PACKAGE = metadata("scmamba-scvi")
version = release = _PACKAGE["Version"]
#: Entries of [project.urls], once there are addresses.
_URLS = dict(entry.split(", ", 1) for entry in _PACKAGE.get_all("Project-URL", ()))

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
# one backtick in a docstring is code too, such as `None`: by default it would be in italics
default_role = "literal"

# notebooks are executed by `make notebooks`, which stores what they print
nb_execution_mode = "off"
nb_merge_streams = True

toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
# a page per name in the tables of api.md
templates_path = ["_templates"]
_API = Path(__file__).with_name("api.md").read_text(encoding="utf-8")
autosummary_context = {"members_of_the_model": re.findall(r"^   (SCMAMBA\.\w+)$", _API, flags=re.MULTILINE)}
napoleon_google_docstring = False
napoleon_use_rtype = False
always_use_bars_union = True
typehints_defaults = "comma"
typehints_document_rtype = False

# equations need no script from the web
html_math_renderer = "mathml"
html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_extra_path = ["_extra"]
html_css_files = ["custom.css"]
html_theme_options = {"show_toc_level": 2, "home_page_in_toc": False}
html_baseurl = _URLS.get("Documentation", "")
if "Source" in _URLS:
    html_theme_options |= {"repository_url": _URLS["Source"], "use_repository_button": True, "use_issues_button": True}
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
        r"(scmamba_scvi\.nn\.block\.Branch|scmamba_scvi\.nn\.sequence\.SequenceNetwork|scmamba_scvi\.metrics\._embedded\.Embedded|array|bool|callable|dict|float|int|list|optional|str|tuple|type|AnnOrMuData|None|[A-Z][A-Za-z]*Error|KeyboardInterrupt)",
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


#: Stands for the text of a section "Returns" while napoleon works.
_RETURNED = "RETURNED"
_texts: list[list[str]] = []


def _take_out_returns(app, what, name, obj, options, lines):
    """Keep a section "Returns" in prose from napoleon, which takes each of its lines for the name of a value."""
    starts = [i - 1 for i, line in enumerate(lines) if line.strip() and not line.strip("-")]
    at = next((i for i in starts if lines[i] == "Returns"), None)
    _texts.clear()
    if at is not None:
        end = next((i for i in starts if i > at), len(lines))
        _texts.append("\n".join(lines[at + 2 : end]).strip().split("\n"))
        lines[at + 2 : end] = [_RETURNED, ""]


def _put_in_returns(app, what, name, obj, options, lines):
    """Put the text where napoleon put what stood for it."""
    at = next((i for i, line in enumerate(lines) if _RETURNED in line), None)
    if at is None or not _texts:
        return
    first, *rest = _texts.pop()
    # a list of names with their descriptions stands apart from the paragraph before it
    described = [i for i in range(1, len(rest)) if rest[i][:1] == " " and rest[i - 1][:1] not in (" ", "")]
    for i in reversed(described):
        rest.insert(i - 1, "")
    lines[at : at + 1] = [f":returns: {first}", *(f"    {line}" if line else "" for line in rest), ""]


def _name_source_of_inherited(app, doctree):
    """Tell viewcode in which class a member is written: it would look for a method of a mixin in the model's own file."""
    for signature in doctree.findall(desc_signature):
        module, name = signature.get("module"), signature.get("fullname")
        if not module or "." not in name:
            continue
        cls, _, own = name.rpartition(".")
        member = getattr(getattr(importlib.import_module(module), cls), own, None)  # None: set when an object is made
        member = inspect.unwrap(getattr(member, "fget", member))
        if inspect.isroutine(member):
            signature["module"], signature["fullname"] = member.__module__, member.__qualname__


def _mathml(node, **kwargs):
    """A formula as MathML, which browsers draw by themselves."""
    # to TeX two digits are two arguments, to docutils they are one number
    return tex2mathml(re.sub(r"frac(\d)(\d)", r"frac{\1}{\2}", node.astext()), **kwargs)


def _write_inline_math(translator, node):
    translator.body.append(_mathml(node))
    raise SkipNode


def _write_equation(translator, node):
    translator.body.append(f'<div class="equation">{_mathml(node, as_block=True)}</div>')
    raise SkipNode


#: Which part of a figure a card of tutorials.md shows, one whole panel: left, top, right, bottom, as fractions of the figure.
_PANELS = {
    "quickstart": (0, 0, 0.527, 1),
    "batches": (0, 0.1, 0.455, 1),
    "mosaic": (0, 0, 0.48, 1),
    "citeseq": (0, 0, 0.78, 0.52),
    "comparison": (0, 0, 0.34, 0.79),
    "atlas": (0, 0, 0.502, 0.5),
}
#: Figures of cards whose notebooks draw none.
_DRAWN = {"comparison": "types_and_seconds.png", "atlas": "scaling.png"}


def _write_thumbnails(app):
    """Write a panel of the last figure of the cell tagged "thumbnail" of each notebook, for the gallery of tutorials.md."""
    figures = {name: Path(app.srcdir, "_static", file).read_bytes() for name, file in _DRAWN.items()}
    for path in Path(app.srcdir, "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if "thumbnail" in cell["metadata"].get("tags", ()):
                drawn = [out["data"]["image/png"] for out in cell["outputs"] if "image/png" in out.get("data", {})]
                figures[path.stem] = base64.b64decode(drawn[-1])
    folder = Path(app.srcdir, "generated")
    folder.mkdir(exist_ok=True)
    for name, figure in figures.items():
        image = Image.open(io.BytesIO(figure)).convert("RGB")
        size = (image.width, image.height) * 2
        panel = _PANELS.get(name, (0, 0, 1, 1))
        image.crop([round(at * n) for at, n in zip(panel, size, strict=True)]).save(folder / f"{name}.png")


def setup(app):
    """Come before intersphinx and viewcode, and before and after napoleon; the priority of all is 500."""
    for options in (ModelConfig, TrainConfig):
        options.__annotations__ = get_type_hints(options)  # without the rules that check their values
    app.add_html_math_renderer("mathml", (_write_inline_math, None), (_write_equation, None))
    app.connect("builder-inited", _write_thumbnails)
    app.connect("doctree-read", _name_source_of_inherited, priority=100)
    app.connect("missing-reference", _resolve_short_name, priority=100)
    app.connect("autodoc-process-docstring", _take_out_returns, priority=100)
    app.connect("autodoc-process-docstring", _put_in_returns, priority=501)
