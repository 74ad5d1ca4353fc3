"""What says how large the world is: sources of metric scale and their fusion."""
