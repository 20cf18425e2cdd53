"""Draw the figure of the README and of the landing page: bone marrow, integrated with the defaults.

``python docs/front_figure.py``. `SCMAMBA_DATA` names the folder with the data sets; without it they are downloaded.
"""

from pathlib import Path

from matplotlib.figure import Figure

from scmamba_scvi import pl, workflow
from scmamba_scvi.data import fetch_bone_marrow

mdata = fetch_bone_marrow("multiome")
model = workflow.integrate(mdata, batch_key="batch")
print(workflow.validation_scores(mdata, model).round(3))
axes = pl.integration(mdata, ["cell_type", "site", "leiden_scmamba"], figure=Figure())
titles = ["RNA and ATAC of each cell", "22 cell types", "4 sites, 13 batches", "clusters"]
for ax, title in zip(axes, titles, strict=True):
    ax.set_title(title, fontsize=ax.title.get_fontsize())
axes[0].figure.savefig(Path(__file__).parent / "_static" / "integration.png", dpi=110)
