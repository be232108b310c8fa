"""Where Ethernet frames come from and go to."""
