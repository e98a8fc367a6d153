"""Client side of DM i AI's tumour segmentation: rehearsal against a service, and submission."""
