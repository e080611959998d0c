"""How receivers are told something over HTTP: one try, the pauses between tries, and many deliveries at once."""
