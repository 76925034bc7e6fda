"""What the threads that a call uses by default cost: beside one thread, on a quiet machine and on a busy one."""
