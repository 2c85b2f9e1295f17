"""Functions that the command line and Python share."""
