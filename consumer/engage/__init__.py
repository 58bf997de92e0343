"""The edge towards Engage: one typed outcome per call."""
