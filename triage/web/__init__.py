"""What people and other systems see: pages, pictures, JSON."""
