"""Where images come from, how they are split, and the decoded cache they are trained from."""
