"""Training: generated scenes, losses, the loop, recipes, and how good a model is. Nothing but the command line imports it."""
