"""Generators of checked-in files: schemas, the configuration reference, the dashboard, the chart's table, pictures."""
