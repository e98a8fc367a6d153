"""HTML report: one file about predictions, a data set and a training, which opens offline.

- `case_files`: the files of every case; `case_arrays`, `case_facts`: their arrays and numbers.
- `rotating_mip`, `charts` (on `svg_plot`): pictures and plots.
- `dataset_check`, `training_curves`: the check of a data set, the curves of a model folder.
- `collect` reads all of these into `content`; `sections` chooses what each section shows; `page`
  writes the file with the jinja2 templates in `templates`, see `templating`.

Scores are those of `nnunetv2_mip.evaluation.evaluate`.
"""
