"""Where a modelled queue stands, one file for each kind of backend."""
