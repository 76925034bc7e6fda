"""Dense networks: forward, backward and steps."""
