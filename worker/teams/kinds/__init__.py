"""Reads ark's and kubeswarm's kinds of YAML documents."""
