"""Maximum intensity projections of a study: geometry, channels, labels, files."""
