"""What the commands of ``python -m fastml`` do."""
