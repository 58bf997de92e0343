"""How it is deployed: the dashboard's source, and what `compose.yaml` mounts."""
