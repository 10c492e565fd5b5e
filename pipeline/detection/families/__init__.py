"""Detector families: one folder for each."""
