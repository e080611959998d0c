"""The model of a queue, and the machine that does to backend and model whatever users do."""
