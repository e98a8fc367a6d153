"""Connected lesions of a mask, and tables of their measurements."""
