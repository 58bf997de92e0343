"""What is deployed: the image, compose, the Prometheus rules, the dashboard, the chart."""
