"""The pages of an evaluation: Model Quality Report, model card, comparison of two runs, and their figures."""
