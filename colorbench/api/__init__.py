"""What the command line and Python both call."""
