"""`status`: what an instance says of itself."""
