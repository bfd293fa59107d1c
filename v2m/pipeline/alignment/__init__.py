"""Music that ignored the cuts, moved so that its beats meet them."""
