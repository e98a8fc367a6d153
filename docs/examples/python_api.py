"""Example of the Python API in cells: `# %%` lines begin a cell in VS Code, Spyder and Jupytext.

It simulates a small patient, so that it runs anywhere; put your own path in the place of `SUV`.
Files are written to the folder `python_api_out`.
"""

# %% A simulated patient: SUV, CT and true lesion mask on voxels of 8 mm
from pathlib import Path

import numpy as np

from nnunetv2_mip import Predictor, evaluate, fuse, project, read_study
from nnunetv2_mip.phantom.cohort import write_cohort

OUT = Path("python_api_out")
cohort = write_cohort(OUT / "patients", 1, 3, 8.0)
SUV = next(cohort.rglob("SUV.nii.gz"))
SEG = SUV.with_name("SEG.nii.gz")

# %% From a path to a mask with the bundled model
predictor = Predictor.bundled(device="cpu", views=4, tta=False)  # without the options: 16 views
found = predictor.predict(SUV)
print(found)  # <VolumeResult …: 2 lesions, 31.5 ml in all, SUVmax 12.8>
print(found.mask.shape, found.mask.dtype, found.spacing_mm)

# %% The mask indexes the array that SimpleITK reads from the same file
if found.mask.any():
    print("mean SUV of all lesions:", found.suv[found.mask == 1].mean())
for row in found.lesions:
    print(row["lesion"], row["volume_ml"], "ml, SUVmax", row["suv_max"])

# %% Files: mask, lesion table, rotating MIP with the outline
found.save(OUT / "mask.nii.gz")
found.save_picture(OUT / "mask_mip.gif")
image = found.to_sitk()  # SimpleITK image on the grid of the input

# %% Scores against the truth
scores = evaluate(found, SEG)
print(
    "Dice", scores.dice, "lesions found", scores.lesion.lesions_found, "of", scores.lesion.lesions
)

# %% Step by step: read, project, predict the views, fuse
study = read_study(SUV, seg=SEG)
views = predictor.project(study)
probability = predictor.view_probabilities(views)
config = predictor.config
again = fuse(probability, views, study, config.fusion, config.regions)
assert np.array_equal(again.mask, found.mask)

# %% Views of your own choice: 12 angles, SUV maxima as an array (view, row, column)
print(project(study, views=12).suv.shape)

# %% Arrays: axes (z, y, x), spacing in mm in the same order
same = predictor.predict((study.suv.array, study.spacing_mm), case="from_an_array")
print(same)

# %% Many studies, one after the other
for result in predictor.predict_all(cohort):
    result.save(OUT / "masks" / f"{result.case}.nii.gz")
