"""Pictures of graphs, training curves and predictions, by matplotlib."""
