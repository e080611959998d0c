"""The audit log: what agents did, one record for each act, for those who have to answer for it."""
