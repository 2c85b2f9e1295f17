"""Train, predict, time: one loop each, for every model."""
