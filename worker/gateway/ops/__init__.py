"""What operators see of the fleet, and what they do with it: the parts behind `/v1/ops`."""
