"""Programs on NVIDIA cards, through CuPy."""
