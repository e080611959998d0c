"""Tests of the command line of teams."""
