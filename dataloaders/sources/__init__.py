"""Sources: one generator a data set, and how rows are read."""
