"""Validation rules: from a dataset and facts about its image files to findings and a repaired dataset."""
