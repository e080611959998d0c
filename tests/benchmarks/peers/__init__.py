"""One small driver for each task queue that Shoal is compared with; each runs in its own environment."""
