"""Parameter names of the authors of each model, and their conversion to names of aurel."""
