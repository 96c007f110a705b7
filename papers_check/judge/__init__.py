"""Printed numbers and relations beside our runs: what may be said of each, and how often that is wrong."""
