"""Many worker processes: under one supervisor on a machine, and known to each other through the queue."""
