"""People who are asked, and tasks that wait for them without a worker."""
