"""The report that a user shows to others: one HTML file that needs nothing else.

`sources` finds the files of every case, `facts` reads what tables and plots need, `viewer` draws
the rotating MIPs, `dataset_check` and `training` look at a data set and a model, `charts` plots,
`page` writes. Scores are those of `nnunetv2_mip.evaluation.evaluate`, and no others.
"""
