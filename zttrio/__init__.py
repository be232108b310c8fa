"""Put a Python program, or any unmodified program, on a virtual network without root."""
