"""What things mean. Pure values in, values out: no socket, file, thread, logger or clock."""
