"""The HTTP surface: aiohttp lives here and nowhere else."""
