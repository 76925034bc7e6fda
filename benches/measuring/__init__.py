"""What all measurements share: clocks, limits of the machine, numbers in print, files, and the command line."""
