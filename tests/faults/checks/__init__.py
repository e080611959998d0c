"""What must be true of the evidence, one file for each promise."""
