"""Readers of data sets in the layouts in which their owners send them, one file a data set."""
