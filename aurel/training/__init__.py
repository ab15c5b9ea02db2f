"""Training and scoring of models with Lightning, from the options of a recipe."""
